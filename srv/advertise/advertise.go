// Package advertise registers a node under an address that other hosts can
// dial.
//
// A server that listens on all addresses has to name one. go-micro names the
// first private one it finds, which may be that of a network that callers do
// not share, or an IPv6 one that they cannot use. The address that packets to
// the registry leave from is one that whoever uses the registry can reach.
package advertise

import (
	"fmt"
	"net"
	"strings"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/util/log"
)

// Addresses that stand for "somewhere else", so that the route to them is the
// default route. They are reserved for documentation (RFC 5737 and RFC 3849)
// and nothing is sent to them.
const (
	elsewhereIPv4 = "203.0.113.1:9"
	elsewhereIPv6 = "[2001:db8::1]:9"
)

// Registry returns r, made to register nodes under the local address that the
// route to registryAddr (host:port) leaves from. Where that is a loopback
// address, as with a registry on this machine, it is the one of the default
// route, so that other hosts can call too; a machine without one can only be
// called by itself. An empty registryAddr stands for the default route.
//
// The address is looked up at each registration, so a registry whose name
// resolves later, or a new network, needs no restart. Where opts, the server's,
// name an address to advertise, or one to listen on, that stays.
func Registry(r registry.Registry, registryAddr string, opts server.Options) registry.Registry {
	return &advertised{Registry: r, registryAddr: registryAddr, chosen: chosen(opts)}
}

// chosen reports whether opts name the host to advertise: with an advertise
// address, or by listening on one address only.
func chosen(opts server.Options) bool {
	addr := opts.Address
	if opts.Advertise != "" {
		addr = opts.Advertise
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host != "" && (ip == nil || !ip.IsUnspecified())
}

type advertised struct {
	registry.Registry
	registryAddr string
	chosen       bool
	last         string // the host of the last registration; Register has one caller
}

func (a *advertised) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	moved := *s
	moved.Nodes = make([]*registry.Node, len(s.Nodes))
	for i, node := range s.Nodes {
		host, port, err := net.SplitHostPort(node.Address)
		if err != nil {
			return fmt.Errorf("address of node %s: %w", node.Id, err)
		}
		if !a.chosen {
			host = Host(a.registryAddr)
		}
		if a.String() == "mdns" && strings.Contains(host, ":") {
			return fmt.Errorf("cannot register %s: go-micro's mDNS registry carries IPv4 addresses only; name one with --server_advertise, or use Consul", host)
		}
		if host != a.last {
			log.Infof("Advertising %s", host)
			a.last = host
		}
		n := *node
		n.Address = net.JoinHostPort(host, port)
		moved.Nodes[i] = &n
	}
	return a.Registry.Register(&moved, opts...)
}

// Host returns the IP address that Registry advertises for registryAddr.
func Host(registryAddr string) string {
	for _, addr := range []string{registryAddr, elsewhereIPv4, elsewhereIPv6} {
		if ip := routeTo(addr); ip != nil && !ip.IsLoopback() {
			return ip.String()
		}
	}
	return "127.0.0.1"
}

// routeTo returns the local address that packets to addr leave from, or nil
// when there is no route or no such host. "Dialing" UDP sends nothing: it only
// asks the kernel for the route.
func routeTo(addr string) net.IP {
	if addr == "" {
		return nil
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return nil
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok || local.IP.IsLinkLocalUnicast() {
		// A link-local address means nothing without its interface.
		return nil
	}
	return local.IP
}
