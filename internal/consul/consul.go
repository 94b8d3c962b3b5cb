// Package consul is go-micro's Consul registry with what it lacks to be relied
// on: bounds on connecting and on waiting for answers, the settings in Consul's
// own variables, IPv6 addresses, and use by several callers at once.
package consul

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
)

// DefaultAddress is that of an agent on this machine.
const DefaultAddress = "127.0.0.1:8500"

// NewRegistry returns go-micro's Consul registry for the agent that
// CONSUL_HTTP_ADDR (DefaultAddress without it) or, later, --registry_address
// names, with the settings of Consul's other CONSUL_HTTP_ variables. Files that
// those name and that cannot be read are errors. Nothing is sent before the
// registry is used.
func NewRegistry() (registry.Registry, error) {
	cfg := api.DefaultConfig()
	if cfg.Address == "localhost:8500" { // the library's default, which may be another's over IPv6
		cfg.Address = DefaultAddress
	}
	cfg.Transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	// Given a config without an HTTP client, go-micro makes one that ignores
	// all of the above.
	client, err := api.NewHttpClient(cfg.Transport, cfg.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("settings from CONSUL_ variables: %w", err)
	}
	client.Transport = bounded{client.Transport}
	cfg.HttpClient = client
	return &safe{
		Registry: consul.NewRegistry(consul.Config(cfg)),
		config:   *cfg,
		known:    map[string][]*registry.Service{},
	}, nil
}

// safe makes one of go-micro's Consul registries safe to rely on. It looks
// services up one at a time, because the registry makes its API client lazily.
// It watches them itself, because the registry's watcher changes the services
// that it has already handed out. And it remembers them: that Consul is away
// does not mean that the nodes are.
type safe struct {
	registry.Registry
	config api.Config

	mu    sync.Mutex
	known map[string][]*registry.Service // what Consul said last, by service
}

// GetService returns the nodes of a service whose checks pass, with addresses
// that can be dialed. Consul is asked as long as it knows of none; after that,
// a watcher keeps the answer current.
func (s *safe) GetService(name string) ([]*registry.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[name]; hasNodes(known) {
		return registry.Copy(known), nil
	}
	services, err := s.lookUp(name)
	if err != nil {
		return nil, err
	}
	s.known[name] = registry.Copy(services)
	return services, nil
}

// lookUp asks Consul for a service. s.mu must be held.
func (s *safe) lookUp(name string) ([]*registry.Service, error) {
	services, err := s.Registry.GetService(name)
	if err != nil {
		return nil, err
	}
	for _, service := range services {
		for _, node := range service.Nodes {
			node.Address = bracket(node.Address)
		}
	}
	return services, nil
}

func hasNodes(services []*registry.Service) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool { return len(s.Nodes) > 0 })
}

// bracket turns fd00::2:8080, which is how go-micro joins an IPv6 address and a
// port, into [fd00::2]:8080, and leaves all else alone.
func bracket(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasPrefix(address, "[") || !strings.Contains(address[:i], ":") {
		return address
	}
	return net.JoinHostPort(address[:i], address[i+1:])
}

// Address returns the host:port at which r is asked, or "" for a registry that
// has none, as mdns.
func Address(r registry.Registry) string {
	addr := ""
	if addrs := r.Options().Addrs; len(addrs) > 0 {
		addr = addrs[0]
	} else if s, ok := r.(*safe); ok {
		addr = s.config.Address
	} else {
		return ""
	}
	if _, after, ok := strings.Cut(addr, "://"); ok {
		addr = after
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), "8500") // as go-micro does
	}
	return addr
}
