package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Consul is a Consul agent in development mode on this machine.
type Consul struct {
	*Process
	Addr   string // host:port of its API and UI
	ports  ConsulPorts
	url    string
	client *http.Client
	header http.Header // of requests
}

// Security has the settings of a Consul with TLS and ACLs.
type Security struct {
	Config string      // path of the agent's configuration, which enables TLS and ACLs
	TLS    *tls.Config // for requests to the agent
	Token  string      // ACL token that may read everything
}

// ConsulPorts are the ports that a Consul listens on. If a port is 0 or not free, a free port
// replaces it.
type ConsulPorts struct {
	HTTP                     int
	Server, SerfLAN, SerfWAN int // between agents
}

// DefaultConsulPorts are Consul's default ports.
var DefaultConsulPorts = ConsulPorts{HTTP: 8500, Server: 8300, SerfLAN: 8301, SerfWAN: 8302}

// gossip sets the time after which Consul marks an unresponsive agent as failed. StartConsul uses
// Consul's development mode. By default, this mode marks an unresponsive agent as failed at once.
// With gossip, it waits some seconds, as the normal mode does.
const gossip = "gossip_lan { suspicion_mult = 30 }"

// StartConsul runs the Consul at path with its log in dir, and waits until services can register.
// The agent listens for HTTP on host, which is an IP address of this machine. If secured is not
// nil, the agent listens for HTTPS instead.
//
// TestServer in github.com/hashicorp/consul/sdk/testutil cannot replace StartConsul. TestServer
// needs a testing.TB, runs the consul on PATH, and does not return the process ID. Scripts need the
// ID to freeze and kill the process.
func StartConsul(ctx context.Context, path, dir, host string, ports ConsulPorts, secured *Security) (*Consul, error) {
	if err := orFree(&ports.HTTP, &ports.Server, &ports.SerfLAN, &ports.SerfWAN); err != nil {
		return nil, fmt.Errorf("ports for Consul: %w", err)
	}
	port := strconv.Itoa(ports.HTTP)
	addr := net.JoinHostPort(host, port)
	c := &Consul{Addr: addr, ports: ports, url: "http://" + addr, client: http.DefaultClient}
	args := []string{"agent", "-dev", "-http-port", port}
	if secured != nil {
		c.url = "https://" + addr
		c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: secured.TLS}}
		c.header = http.Header{"X-Consul-Token": {secured.Token}}
		args = []string{"agent", "-dev", "-config-file", secured.Config, "-http-port", "-1", "-https-port", port}
	}
	var err error
	c.Process, err = Start("consul", filepath.Join(dir, "consul.log"), Environ(), path, append(args,
		"-node", "consul", // otherwise the UI, and its pictures, would show this machine's name
		"-bind", "127.0.0.1", "-client", host,
		"-server-port", strconv.Itoa(ports.Server),
		"-serf-lan-port", strconv.Itoa(ports.SerfLAN),
		"-serf-wan-port", strconv.Itoa(ports.SerfWAN),
		"-hcl", gossip,
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")...)
	if err != nil {
		return nil, err
	}
	return c, c.await(ctx)
}

// Join runs the Consul at path as an agent that is not a server. Most hosts of a cluster have such
// an agent. The agent joins c. Join waits until services can register in the agent. The agent uses
// the ports HTTP and SerfLAN, and has its log and its state in dir. If Join is called again with
// the same dir, Consul treats the new process as the same agent after a restart.
func (c *Consul) Join(ctx context.Context, path, dir string, ports ConsulPorts) (*Consul, error) {
	if err := orFree(&ports.HTTP, &ports.SerfLAN); err != nil {
		return nil, fmt.Errorf("ports for Consul: %w", err)
	}
	addr := local(ports.HTTP)
	joined := &Consul{Addr: addr, ports: ports, url: "http://" + addr, client: http.DefaultClient}
	var err error
	joined.Process, err = Start("agent", filepath.Join(dir, "agent.log"), Environ(), path, "agent",
		"-node", "agent", "-data-dir", filepath.Join(dir, "agent.data"), "-log-level", "debug",
		"-retry-join", local(c.ports.SerfLAN), "-retry-interval", "1s",
		"-bind", "127.0.0.1", "-client", "127.0.0.1",
		"-http-port", strconv.Itoa(ports.HTTP), "-serf-lan-port", strconv.Itoa(ports.SerfLAN),
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")
	if err != nil {
		return nil, err
	}
	return joined, joined.await(ctx)
}

// Ports returns the ports that the agent listens on.
func (c *Consul) Ports() ConsulPorts { return c.ports }

// await waits until services can register in c. If ctx ends first, await kills c. Services can
// register when Consul lists itself as a service: it does so after it has elected a leader and
// synced its catalog.
func (c *Consul) await(ctx context.Context) error {
	err := c.until(ctx, "catalog", func() bool {
		body, err := c.get(ctx, "/v1/catalog/service/consul")
		return err == nil && bytes.Contains(body, []byte("ServiceID"))
	})
	if err != nil {
		_ = c.Stop(syscall.SIGKILL)
	}
	return err
}

func (c *Consul) get(ctx context.Context, path string) ([]byte, error) {
	return get(ctx, c.client, c.url+path, c.header)
}

// Nodes waits until service has exactly n healthy nodes. It returns their addresses as host:port,
// sorted.
func (c *Consul) Nodes(ctx context.Context, service string, n int) ([]string, error) {
	var addresses []string
	err := c.until(ctx, fmt.Sprintf("%d nodes of %s", n, service), func() bool {
		body, err := c.get(ctx, "/v1/health/service/"+service+"?passing")
		if err != nil {
			return false
		}
		var entries []struct {
			Service struct {
				Address string
				Port    int
			}
		}
		if json.Unmarshal(body, &entries) != nil {
			return false
		}
		addresses = nil
		for _, e := range entries {
			addresses = append(addresses, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
		}
		return len(addresses) == n
	})
	slices.Sort(addresses)
	return addresses, err
}
