package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// consulServers is the number of Consul servers. Three is the smallest number that tolerates a
// failed server.
const consulServers = 3

// pollInterval is the pause between two checks of a condition.
const pollInterval = 50 * time.Millisecond

// Cluster is a Network with Consul and Jaeger in the layout of docs/production.md. Each of the
// hosts consul-1 to consul-3 runs a Consul server. Each host srv-N and each host client-N runs a
// Consul agent. The host jaeger runs Jaeger.
type Cluster struct {
	*Network

	consul, jaeger string // paths of the programs
	agents         map[*Host]*backend.Process
}

// New creates the network of a cluster. consul and jaeger are the paths of the two programs.
// servers is the number of hosts srv-N, and clients is the number of hosts client-N. Data and logs
// are in dir. Close stops all processes and deletes the network.
func New(dir, consul, jaeger string, servers, clients int) (*Cluster, error) {
	var names []string
	for _, kind := range []struct {
		prefix string
		n      int
	}{{"consul-", consulServers}, {"srv-", servers}, {"client-", clients}} {
		for i := range kind.n {
			names = append(names, fmt.Sprintf("%s%d", kind.prefix, i+1))
		}
	}
	network, err := NewNetwork(dir, append(names, "jaeger")...)
	if err != nil {
		return nil, err
	}
	return &Cluster{Network: network, consul: consul, jaeger: jaeger, agents: map[*Host]*backend.Process{}}, nil
}

// Start starts Consul and Jaeger. It waits until Consul has a leader and lists all agents, and
// until Jaeger responds.
func (c *Cluster) Start(ctx context.Context) error {
	jaeger := c.Host("jaeger")
	root, err := project.Root()
	if err != nil {
		return err
	}
	ui, err := binaries.UI()
	if err != nil {
		return err
	}
	_, err = jaeger.Start("jaeger", backend.Environ(
		"BASIS_JAEGER_SPANS="+net.JoinHostPort(jaeger.Addr, "6831"),
		"BASIS_JAEGER_QUERY="+net.JoinHostPort(jaeger.Addr, "16686"),
		"BASIS_JAEGER_UI="+ui,
	), c.jaeger, "--config", "file:"+filepath.Join(root, "dev", "internal", "backend", "jaeger.yaml"))
	if err != nil {
		return err
	}
	members := 0
	for _, h := range c.hosts {
		if h == jaeger {
			continue
		}
		if err := c.StartConsul(h); err != nil {
			return err
		}
		members++
	}
	if err := until(ctx, fmt.Sprintf("%d Consul agents", members), func() error {
		var nodes []struct{}
		err := c.query(ctx, "/v1/catalog/nodes", &nodes)
		if err == nil && len(nodes) != members {
			err = fmt.Errorf("%d agents", len(nodes))
		}
		return err
	}); err != nil {
		return err
	}
	return until(ctx, "an answer from Jaeger", func() error {
		_, err := backend.Get(ctx, c.JaegerUI()+"/api/services")
		return err
	})
}

// StartConsul starts a Consul server on a host consul-N, and a Consul agent on any other host. If
// Consul has already run on the host, the new process uses the data of the old process. StartConsul
// does not wait until Consul is ready.
func (c *Cluster) StartConsul(h *Host) error {
	args := []string{"agent", "-node=" + h.Name, "-bind=" + h.Addr, "-data-dir=" + filepath.Join(h.Dir, "consul"),
		"-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-hcl=disable_update_check = true"}
	for _, server := range c.Hosts("consul-") {
		if server != h {
			args = append(args, "-retry-join="+server.Addr)
		}
	}
	args = append(args, "-retry-interval=1s")
	if strings.HasPrefix(h.Name, "consul-") {
		args = append(args, "-server", "-ui", fmt.Sprintf("-bootstrap-expect=%d", consulServers),
			"-client=127.0.0.1 "+h.Addr, "-hcl=performance { raft_multiplier = 1 }")
	}
	p, err := h.Start("consul", backend.Environ(), c.consul, args...)
	if err != nil {
		return err
	}
	c.agents[h] = p
	return nil
}

// Consul returns the Consul process that was started last on a host, or nil if there is none.
func (c *Cluster) Consul(h *Host) *backend.Process { return c.agents[h] }

// ConsulUI returns the URL of a Consul server's API and UI. The URL works on this machine.
func (c *Cluster) ConsulUI(h *Host) string { return "http://" + net.JoinHostPort(h.Addr, "8500") }

// JaegerUI returns the URL of Jaeger's API and UI. The URL works on this machine.
func (c *Cluster) JaegerUI() string {
	return "http://" + net.JoinHostPort(c.Host("jaeger").Addr, "16686")
}

// Environ returns the environment of the pair's programs on a host, with the additional variables
// env. The programs use the agent of their own host as registry. While the agent is down, they use
// one of the Consul servers. The hosts use the three servers in turn: two neighbors in the list of
// hosts use different servers.
func (c *Cluster) Environ(h *Host, env ...string) []string {
	servers := c.Hosts("consul-")
	second := servers[slices.Index(c.hosts, h)%len(servers)]
	return backend.Environ(append([]string{
		"MICRO_REGISTRY_ADDRESS=127.0.0.1:8500," + net.JoinHostPort(second.Addr, "8500"),
		"JAEGER_ADDRESS=" + net.JoinHostPort(c.Host("jaeger").Addr, "6831"),
	}, env...)...)
}

// Leader waits until Consul has a leader, and returns the leader's host.
func (c *Cluster) Leader(ctx context.Context) (*Host, error) {
	var leader *Host
	err := until(ctx, "a leader of Consul", func() error {
		var addr string
		if err := c.query(ctx, "/v1/status/leader", &addr); err != nil {
			return err
		}
		for _, h := range c.Hosts("consul-") {
			if net.JoinHostPort(h.Addr, "8300") == addr {
				leader = h
				return nil
			}
		}
		return fmt.Errorf("the leader is %q", addr)
	})
	return leader, err
}

// Nodes waits until exactly n nodes of service are healthy, and returns the sorted host:port of the
// nodes.
func (c *Cluster) Nodes(ctx context.Context, service string, n int) ([]string, error) {
	var addresses []string
	err := until(ctx, fmt.Sprintf("%d nodes of %s", n, service), func() error {
		var entries []struct {
			Service struct {
				Address string
				Port    int
			}
		}
		if err := c.query(ctx, "/v1/health/service/"+service+"?passing", &entries); err != nil {
			return err
		}
		addresses = nil
		for _, e := range entries {
			addresses = append(addresses, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
		}
		slices.Sort(addresses)
		// While a server moves from one agent to another, both agents may list the server.
		if addresses = slices.Compact(addresses); len(addresses) != n {
			return fmt.Errorf("%d nodes: %v", len(addresses), addresses)
		}
		return nil
	})
	return addresses, err
}

// query requests path from one Consul server after another, until a response has the status 200. It
// decodes the JSON of this response into the value that result points to.
func (c *Cluster) query(ctx context.Context, path string, result any) error {
	var err error
	for _, h := range c.Hosts("consul-") {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		var body []byte
		body, err = backend.Get(ctx, c.ConsulUI(h)+path)
		cancel()
		if err == nil {
			return json.NewDecoder(bytes.NewReader(body)).Decode(result)
		}
	}
	return err
}

// until calls condition repeatedly, until condition returns nil or ctx ends. If ctx ends, until
// returns an error with label, which is the name of the condition.
func until(ctx context.Context, label string, condition func() error) error {
	if err := backend.Until(ctx, pollInterval, condition); err != nil {
		return fmt.Errorf("waiting for %s: %w; last: %w", label, ctx.Err(), err)
	}
	return nil
}
