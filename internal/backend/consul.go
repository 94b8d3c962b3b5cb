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
	url    string
	client *http.Client
	header http.Header // of requests
}

// Secured is a Consul with TLS and ACLs.
type Secured struct {
	Config string      // path of the agent's configuration, which turns them on
	TLS    *tls.Config // to call it with
	Token  string      // that may read everything
}

// StartConsul runs the Consul at path with its log in dir, and waits until it
// can be registered in. It listens on host, an IP address of this machine, on
// port if that is free, and on another otherwise: for HTTP, or for HTTPS alone if
// secured is not nil.
func StartConsul(ctx context.Context, path, dir, host string, port int, secured *Secured) (*Consul, error) {
	ports, err := FreePorts(4)
	if err != nil {
		return nil, fmt.Errorf("ports for Consul: %w", err)
	}
	if port == 0 || !isFree(port) {
		port = ports[0]
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	c := &Consul{Addr: addr, url: "http://" + addr, client: http.DefaultClient}
	args := []string{"agent", "-dev", "-http-port", strconv.Itoa(port)}
	if secured != nil {
		c.url = "https://" + addr
		c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: secured.TLS}}
		c.header = http.Header{"X-Consul-Token": {secured.Token}}
		args = []string{"agent", "-dev", "-config-file", secured.Config, "-http-port", "-1", "-https-port", strconv.Itoa(port)}
	}
	c.Process, err = Start("consul", filepath.Join(dir, "consul.log"), Environ(), path, append(args,
		"-bind", "127.0.0.1", "-client", host,
		"-server-port", strconv.Itoa(ports[1]),
		"-serf-lan-port", strconv.Itoa(ports[2]),
		"-serf-wan-port", strconv.Itoa(ports[3]),
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")...)
	if err != nil {
		return nil, err
	}
	// Consul lists itself once it has elected a leader and synced its catalog.
	err = c.until(ctx, "catalog", func() bool {
		body, err := c.get(ctx, "/v1/catalog/service/consul")
		return err == nil && bytes.Contains(body, []byte("ServiceID"))
	})
	if err != nil {
		_ = c.Stop(syscall.SIGKILL)
		return nil, err
	}
	return c, nil
}

func (c *Consul) get(ctx context.Context, path string) ([]byte, error) {
	return get(ctx, c.client, c.url+path, c.header)
}

// Nodes waits until n nodes of service are healthy and returns their addresses,
// as host:port and sorted.
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
