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

// nodesOf returns the service name of the nodes that the method register adds. A server that
// registers itself uses another name, which the function service returns. This server is the only
// node with that name.
func nodesOf(e entry) string { return service(e) + ".nodes" }

// register registers a contender's server as r.nodes nodes and returns the addresses of the nodes.
// One server can be all nodes, because on Linux every address of 127.0.0.0/8 is an address of this
// machine.
//
// If the server is srv, each node has the tags of a node that go-micro registers. The nodes have no
// checks, because nothing would renew the checks. The registrations end when Consul exits.
func (b *testbed) register(ctx context.Context, r *running) ([]string, error) {
	client, err := api.NewClient(&api.Config{Address: b.consul.Addr})
	if err != nil {
		return nil, err
	}
	port, tags, err := b.server(ctx, client, r)
	if err != nil {
		return nil, err
	}
	var (
		addresses    []string
		registration errgroup.Group
	)
	registration.SetLimit(16)
	for i := range r.nodes {
		host := net.IPv4(127, 0, byte(1+i/250), byte(1+i%250)).String()
		addresses = append(addresses, net.JoinHostPort(host, strconv.Itoa(port)))
		registration.Go(func() error {
			_, err := client.Catalog().Register(&api.CatalogRegistration{
				// Consul calls a machine a node. A registration takes longer if the machine has
				// more services, so each machine has at most 100 services.
				Node:    fmt.Sprintf("%s-%d", nodesOf(r.entry), i/100),
				Address: "127.0.0.1",
				Service: &api.AgentService{
					ID:      fmt.Sprintf("%s-%04d", nodesOf(r.entry), i),
					Service: nodesOf(r.entry),
					Tags:    tags,
					Address: host,
					Port:    port,
				},
			}, new(api.WriteOptions).WithContext(ctx))
			return err
		})
	}
	if err := registration.Wait(); err != nil {
		return nil, fmt.Errorf("registering %d nodes: %w", r.nodes, err)
	}
	return addresses, nil
}

// server returns the port of a contender's server. If the contender's server is srv, the method
// also returns the tags that go-micro has given the server's node.
func (b *testbed) server(ctx context.Context, client *api.Client, r *running) (port int, tags []string, err error) {
	if !r.pair {
		_, text, err := net.SplitHostPort(r.address)
		if err != nil {
			return 0, nil, err
		}
		port, err = strconv.Atoi(text)
		return port, nil, err
	}
	found, _, err := client.Health().Service(service(r.entry), "", false, new(api.QueryOptions).WithContext(ctx))
	if err != nil {
		return 0, nil, err
	}
	if len(found) != 1 {
		return 0, nil, fmt.Errorf("%s has %d nodes in Consul instead of one", service(r.entry), len(found))
	}
	return found[0].Service.Port, found[0].Service.Tags, nil
}

// connect lets the client make calls until the client has a connection to each address. It returns
// an error if a connection is still missing after more than 32 calls per address. One call per
// address is not enough, for two reasons: concurrent callers change the order in which the nodes
// get calls, and not every client has a round robin.
func (r *running) connect(addresses []string) error {
	const callers, attempts = 16, 32
	var missing string
	for range attempts {
		result, err := r.client.load(contender.Load{Callers: callers, Calls: 1 + len(addresses)/callers})
		if err != nil {
			return err
		}
		r.calls += result.Calls
		if missing, err = r.unconnected(addresses); err != nil || missing == "" {
			return err
		}
	}
	return fmt.Errorf("no connection to the node %s of %d after %d calls", missing, len(addresses), r.calls)
}

// unconnected returns an address that the client has no connection to, or "" if the client is
// connected to all addresses.
func (r *running) unconnected(addresses []string) (string, error) {
	proc, err := procfs.NewProc(r.client.cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	sockets, err := own(proc)
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		if !sockets[address] {
			return address, nil
		}
	}
	return "", nil
}

// own returns the remote addresses of the established connections of a process.
func own(process procfs.Proc) (map[string]bool, error) {
	targets, err := process.FileDescriptorTargets()
	if err != nil {
		return nil, err
	}
	inodes := map[string]bool{}
	for _, t := range targets {
		inodes[t] = true
	}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 netlink is faster, but NetTCP is fast enough for a few thousand sockets
	sockets, err := proc.NetTCP()
	if err != nil {
		return nil, err
	}
	connected := map[string]bool{}
	for _, s := range sockets {
		if s.St == established && inodes[fmt.Sprintf("socket:[%d]", s.Inode)] {
			connected[net.JoinHostPort(s.RemAddr.String(), strconv.FormatUint(s.RemPort, 10))] = true
		}
	}
	return connected, nil
}

// established is the state of an established connection in /proc/net/tcp.
const established = 1

// spareFiles is the maximum number of files that a process opens besides its connections.
const spareFiles = 100

// checkFiles returns an error if the limit of open files does not allow a connection per node. It
// checks the hard limit, because Go programs raise their soft limit to the hard limit.
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
