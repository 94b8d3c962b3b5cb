package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"

	"github.com/gomicroexample/basis/dev/bench/contender"
)

// nodesOf is the name that the nodes of a contender's server are registered under. Its
// server has another, and only one node.
func nodesOf(e entry) string { return service(e) + ".nodes" }

// register registers a contender's server as e.nodes nodes and returns their addresses.
// Linux has all of 127.0.0.0/8, so that one server is reached at each of them. A node is
// as go-micro registers one, but for a check: nobody would renew it. They are gone with
// the Consul.
func (b *testbed) register(ctx context.Context, e entry) ([]string, error) {
	client, err := api.NewClient(&api.Config{Address: b.consul.Addr})
	if err != nil {
		return nil, err
	}
	found, _, err := client.Health().Service(service(e), "", false, new(api.QueryOptions).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s has %d nodes in Consul instead of one", service(e), len(found))
	}
	server := found[0].Service
	var (
		addresses    []string
		registration errgroup.Group
	)
	registration.SetLimit(16)
	for i := range e.nodes {
		host := net.IPv4(127, 0, byte(1+i/250), byte(1+i%250)).String()
		addresses = append(addresses, net.JoinHostPort(host, strconv.Itoa(server.Port)))
		registration.Go(func() error {
			_, err := client.Catalog().Register(&api.CatalogRegistration{
				Node:    "nodes", // as Consul calls the machine that all of them run on
				Address: "127.0.0.1",
				Service: &api.AgentService{
					ID:      fmt.Sprintf("%s-%04d", nodesOf(e), i),
					Service: nodesOf(e),
					Tags:    server.Tags,
					Address: host,
					Port:    server.Port,
				},
			}, new(api.WriteOptions).WithContext(ctx))
			return err
		})
	}
	if err := registration.Wait(); err != nil {
		return nil, fmt.Errorf("registering %d nodes: %w", e.nodes, err)
	}
	return addresses, nil
}

// connect has the client call every node, four times over: callers at the same time mix
// up the order a little. It returns an error unless the client then has a connection to
// each of the addresses.
func (r *running) connect(addresses []string) error {
	const callers = 16
	result, err := r.client.load(contender.Load{Callers: callers, Calls: 1 + 4*len(addresses)/callers})
	if err != nil {
		return err
	}
	r.calls += result.Calls
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return err
	}
	//lint:ignore SA1019 netlink is faster, and a few thousand sockets are few
	sockets, err := proc.NetTCP()
	if err != nil {
		return err
	}
	connected := map[string]bool{}
	for _, s := range sockets {
		if s.St == established {
			connected[net.JoinHostPort(s.RemAddr.String(), strconv.FormatUint(s.RemPort, 10))] = true
		}
	}
	for _, address := range addresses {
		if !connected[address] {
			return fmt.Errorf("no connection to the node %s after %d calls to %d nodes", address, result.Calls, len(addresses))
		}
	}
	return nil
}

// established is the state of a TCP connection, in /proc/net/tcp.
const established = 1

// spareFiles bounds the files that a process opens besides its connections.
const spareFiles = 100

// checkFiles returns an error if a client or a server may not open a connection for each
// node. Go programs raise the soft limit to the hard one themselves.
func checkFiles(entries []entry) error {
	most := 0
	for _, e := range entries {
		most = max(most, e.nodes)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("asking for the limit of open files: %w", err)
	}
	if want := uint64(most + spareFiles); limit.Max < want {
		return fmt.Errorf("a process may open %d files here, and %d nodes take %d; raise the hard limit (ulimit -Hn)", limit.Max, most, want)
	}
	return nil
}
