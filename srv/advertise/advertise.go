// Package advertise registers a node under an address that other hosts can
// dial.
//
// A server that listens on all addresses has to name one. go-micro names the
// first private one it finds, which callers may not be able to reach. The one
// that packets to the registry leave from, all who use the registry can.
package advertise

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/util/log"
)

// Registry returns r, made to register nodes under the local address that packets
// to registryAddr (host:port) leave from, unless opts, the server's, name one to
// advertise or to listen on. It is looked up at each registration: a new network
// needs no restart.
func Registry(r registry.Registry, registryAddr string, opts server.Options) registry.Registry {
	host, _, _ := net.SplitHostPort(cmp.Or(opts.Advertise, opts.Address))
	chosen := host != "" && !net.ParseIP(host).IsUnspecified()
	return &advertised{Registry: r, registryAddr: registryAddr, chosen: chosen}
}

// lookupTimeout is how long the registry's name may take to resolve.
const lookupTimeout = time.Second

type advertised struct {
	registry.Registry
	registryAddr string
	chosen       bool   // whether the host is that of the server's options
	last         string // the host of the last registration; Register has one caller
}

func (a *advertised) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	moved := registry.Copy([]*registry.Service{s})[0]
	for _, node := range moved.Nodes {
		host, port, err := net.SplitHostPort(node.Address)
		if err != nil {
			return fmt.Errorf("address of node %s: %w", node.Id, err)
		}
		if !a.chosen {
			host = localIP(a.registryAddr)
		}
		if a.String() == "mdns" && strings.Contains(host, ":") {
			return fmt.Errorf("cannot register %s: go-micro's mDNS registry carries IPv4 addresses only; name one with --server_advertise, or use Consul", host)
		}
		if host != a.last {
			log.Infof("Advertising %s", host)
			a.last = host
		}
		node.Address = net.JoinHostPort(host, port)
	}
	return a.Registry.Register(moved, opts...)
}

// localIP returns the address that packets to registryAddr leave from. Where other
// hosts cannot dial it, as with a registry on this machine, it is the default
// route's; without one, 127.0.0.1.
func localIP(registryAddr string) string {
	for _, addr := range []string{
		registryAddr,
		// Elsewhere: reserved for documentation (RFC 5737 and RFC 3849).
		"203.0.113.1:9",
		"[2001:db8::1]:9",
	} {
		conn, err := net.DialTimeout("udp", addr, lookupTimeout) // sends addr nothing, only asks for the route
		if err != nil {
			continue
		}
		conn.Close()
		// Neither loopback nor link-local, which means nothing without its interface.
		if ip := conn.LocalAddr().(*net.UDPAddr).IP; ip.IsGlobalUnicast() {
			return ip.String()
		}
	}
	return "127.0.0.1"
}
