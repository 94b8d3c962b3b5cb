package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Consul is a Consul agent in development mode on this machine.
type Consul struct {
	*Process
	Addr string // host:port of its API and UI
}

// StartConsul runs the Consul at path with its log in dir, and waits until it
// can be registered in. It listens on host, an IP address of this machine, on
// port if that is free, and on another otherwise.
func StartConsul(ctx context.Context, path, dir, host string, port int) (*Consul, error) {
	ports, err := freePorts(4)
	if err != nil {
		return nil, fmt.Errorf("ports for Consul: %w", err)
	}
	if port == 0 || !isFree(port) {
		port = ports[0]
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	p, err := Start("consul", filepath.Join(dir, "consul.log"), Environ(), path, "agent", "-dev",
		"-bind", "127.0.0.1", "-client", host,
		"-http-port", strconv.Itoa(port),
		"-server-port", strconv.Itoa(ports[1]),
		"-serf-lan-port", strconv.Itoa(ports[2]),
		"-serf-wan-port", strconv.Itoa(ports[3]),
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")
	if err != nil {
		return nil, err
	}
	// Consul lists itself once it has elected a leader and synced its catalog.
	err = p.waitHTTP(ctx, "http://"+addr+"/v1/catalog/service/consul", func(body []byte) bool {
		return bytes.Contains(body, []byte("ServiceID"))
	})
	if err != nil {
		_ = p.Stop(syscall.SIGKILL)
		return nil, err
	}
	return &Consul{Process: p, Addr: addr}, nil
}

// Nodes waits until n nodes of service are healthy and returns their addresses,
// as host:port and sorted.
func (c *Consul) Nodes(ctx context.Context, service string, n int) ([]string, error) {
	var addresses []string
	err := c.until(ctx, fmt.Sprintf("%d nodes of %s", n, service), func() bool {
		body, err := Get(ctx, "http://"+c.Addr+"/v1/health/service/"+service+"?passing")
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
