// Package consul is go-micro's Consul registry with what it lacks to be relied
// on: bounds on connecting and on waiting for answers, the settings in Consul's
// own variables, IPv6 addresses, and use by several callers at once.
package consul

import (
	"fmt"
	"net"
	"net/http"
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
// names, with the settings of Consul's other CONSUL_ variables. Nothing is sent,
// and nothing is said of wrong settings, before the registry is used: see Err.
func NewRegistry() registry.Registry {
	cfg := api.DefaultConfig()
	if cfg.Address == "localhost:8500" { // the library's default, which may be another's over IPv6
		cfg.Address = DefaultAddress
	}
	cfg.Transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	// Given a config without an HTTP client, go-micro makes one that ignores
	// all of the above.
	client, err := api.NewHttpClient(cfg.Transport, cfg.TLSConfig)
	if err != nil {
		client = new(http.Client)
	}
	client.Transport = bounded{client.Transport}
	cfg.HttpClient = client
	return &safe{
		Registry: consul.NewRegistry(consul.Config(cfg)),
		config:   *cfg,
		err:      err,
		known:    map[string][]*registry.Service{},
	}
}

// Err returns what is wrong with the settings of r, such as a file that a
// variable names and that cannot be read. Only a registry that is used needs to
// be asked.
func Err(r registry.Registry) error {
	if s, ok := r.(*safe); ok && s.err != nil {
		return fmt.Errorf("settings from CONSUL_ variables: %w", s.err)
	}
	return nil
}

// safe makes one of go-micro's Consul registries safe to rely on. It looks
// services up one at a time, because the registry makes its API client lazily.
// It watches them itself, because the registry's watcher changes the services
// that it has already handed out. And it remembers them: that Consul is away
// does not mean that the nodes are.
type safe struct {
	registry.Registry
	config api.Config
	err    error // in the settings

	asking sync.Mutex // held while Consul is asked; taken before mu

	mu      sync.Mutex
	known   map[string][]*registry.Service // what Consul said last, by service
	watches int                            // how many watchers there were
}

// GetService returns the nodes of a service whose checks pass, with addresses
// that can be dialed. Consul is asked as long as it knows of none; after that,
// a watcher keeps the answer current.
func (s *safe) GetService(name string) ([]*registry.Service, error) {
	if known := s.last(name); hasNodes(known) {
		return registry.Copy(known), nil
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	services, err := s.lookUp(name)
	if err != nil {
		return nil, err
	}
	s.remember(name, services)
	return services, nil
}

// last returns what Consul said last of a service. It is not to be changed.
func (s *safe) last(name string) []*registry.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[name]
}

// remember keeps a copy of what Consul said.
func (s *safe) remember(name string, services []*registry.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[name] = registry.Copy(services)
}

// lookUp asks Consul for a service. s.asking must be held.
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

// Address returns the host:port at which r is asked, the first where there are
// several, or "" for a registry that has none, as mdns.
func Address(r registry.Registry) string {
	if addrs := r.Options().Addrs; len(addrs) > 0 {
		return hostPort(addrs[0])
	}
	if s, ok := r.(*safe); ok {
		return hostPort(s.config.Address)
	}
	return ""
}

// hostPort strips the scheme that Consul's addresses may have, and adds the port
// that they may lack.
func hostPort(addr string) string {
	if _, after, ok := strings.Cut(addr, "://"); ok {
		addr = after
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), "8500") // as go-micro does
	}
	return addr
}
