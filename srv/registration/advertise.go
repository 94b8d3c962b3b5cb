package registration

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// lookupTimeout limits the lookup of the registry's host name.
const lookupTimeout = time.Second

// advertisingRegistry registers nodes under an address that other hosts can dial. A server that
// listens on all addresses must advertise one of them. go-micro advertises the first private
// address that it finds, but callers may be unable to reach this address. advertisingRegistry
// advertises the source address of packets to the registry, because the other hosts that use the
// registry can reach this address.
type advertisingRegistry struct {
	registry.Registry
	registryAddrs []string
	chosen        bool // the server's options name a host: advertise this host
	// last is the host that was advertised last. It needs no lock: Register never runs twice at the
	// same time.
	last string
}

func newAdvertisingRegistry(r registry.Registry, opts Options) registry.Registry {
	host, _, _ := net.SplitHostPort(cmp.Or(opts.Server.Advertise, opts.Server.Address))
	chosen := host != "" && !net.ParseIP(host).IsUnspecified()
	return &advertisingRegistry{Registry: r, registryAddrs: opts.RegistryAddresses, chosen: chosen}
}

func (a *advertisingRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	moved := registry.Copy([]*registry.Service{s})[0]
	for _, node := range moved.Nodes {
		host, port, err := net.SplitHostPort(node.Address)
		if err != nil {
			return fmt.Errorf("address of node %s: %w", node.Id, err)
		}
		if !a.chosen {
			if host, err = localIP(a.registryAddrs); err != nil {
				return err
			}
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

// localIP returns the source address of packets to the first of registryAddrs whose host name
// resolves. If there is no such address, or if other hosts cannot dial it, for example because the
// registry runs on this host, localIP returns the source address of the default route. Without a
// default route, localIP returns 127.0.0.1.
//
// localIP returns an error if the lookup of every host name in registryAddrs fails. It does not use
// the default route then, for two reasons. In a container with several networks, the default route
// may lead to a network without the registry. And a host name may resolve a moment later.
func localIP(registryAddrs []string) (string, error) {
	var unresolved error
	for _, addr := range registryAddrs {
		ip, err := sourceIP(addr)
		if ip != "" {
			return ip, nil
		}
		if dns := (*net.DNSError)(nil); !errors.As(err, &dns) {
			return defaultIP(), nil
		}
		unresolved = err
	}
	if unresolved != nil {
		return "", unresolved
	}
	return defaultIP(), nil
}

// defaultIP returns the source address of the default route, or 127.0.0.1 if there is no default
// route.
func defaultIP() string {
	// These addresses are reserved for documentation (RFC 5737 and RFC 3849), so only the default
	// route leads to them.
	for _, addr := range []string{"203.0.113.1:9", "[2001:db8::1]:9"} {
		if ip, _ := sourceIP(addr); ip != "" {
			return ip
		}
	}
	return "127.0.0.1"
}

// sourceIP returns the source address of packets to addr. It returns "" for a loopback address, and
// for a link-local address, which is valid on one link only.
func sourceIP(addr string) (string, error) {
	conn, err := net.DialTimeout("udp", addr, lookupTimeout) // selects a route; sends no packet
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ip := conn.LocalAddr().(*net.UDPAddr).IP
	if !ip.IsGlobalUnicast() {
		return "", nil
	}
	return ip.String(), nil
}
