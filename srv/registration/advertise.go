package registration

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// lookupTimeout is how long the registry's name may take to resolve.
const lookupTimeout = time.Second

// advertisingRegistry registers nodes under an address that other hosts can dial. A
// server that listens on all addresses has to name one. go-micro names the first private
// address that it finds, which callers may not reach. Whoever uses the registry can reach
// the address that packets to the registry leave from.
type advertisingRegistry struct {
	registry.Registry
	registryAddr string
	chosen       bool   // the host in the server's options is advertised
	last         string // the host of the last registration; Register has one caller at a time
}

func newAdvertisingRegistry(r registry.Registry, opts Options) registry.Registry {
	host, _, _ := net.SplitHostPort(cmp.Or(opts.Server.Advertise, opts.Server.Address))
	chosen := host != "" && !net.ParseIP(host).IsUnspecified()
	return &advertisingRegistry{Registry: r, registryAddr: opts.RegistryAddress, chosen: chosen}
}

func (a *advertisingRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
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

// localIP returns the address that packets to registryAddr leave from. If other hosts
// cannot dial that address, as with a registry on this host, localIP returns the address
// of the default route; without such a route, 127.0.0.1.
func localIP(registryAddr string) string {
	for _, addr := range []string{
		registryAddr,
		// Elsewhere: reserved for documentation (RFC 5737 and RFC 3849).
		"203.0.113.1:9",
		"[2001:db8::1]:9",
	} {
		conn, err := net.DialTimeout("udp", addr, lookupTimeout) // sends nothing, only looks up the route
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
