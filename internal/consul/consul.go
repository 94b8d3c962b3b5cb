// Package consul is go-micro's Consul registry with what it lacks to be relied
// on: bounds on connecting and on waiting for answers, the settings in Consul's
// own variables, ACLs, IPv6 addresses, and use by several callers at once.
package consul

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
)

// DefaultAddress is that of an agent on this machine.
const DefaultAddress = "127.0.0.1:8500"

// ErrDenied is the error of what Consul's ACLs do not allow.
var ErrDenied = errors.New("permission denied")

// NewRegistry returns go-micro's Consul registry for the agent that
// CONSUL_HTTP_ADDR (DefaultAddress without it) or, later, registry.Addrs
// names, with the settings of Consul's other CONSUL_ variables.
//
// The error says which of the variables cannot be used. The registry is usable as a
// value even then, so that a program may go on with another registry.
//
// Where Consul has ACLs, registering takes a token with service:write for the
// service, and looking it up one with service:read for it and node:read for the
// nodes that it is on.
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
		client = new(http.Client)
	}
	client.Transport = timeoutTransport{client.Transport}
	cfg.HttpClient = client
	config := *cfg // what api.NewClient is given, it changes
	if err == nil {
		_, err = api.NewClient(cfg) // which reads CONSUL_HTTP_TOKEN_FILE
	}
	if wrong := CheckAddress(config.Address); wrong != nil {
		err = fmt.Errorf("CONSUL_HTTP_ADDR %w", wrong)
	}
	r := &consulRegistry{
		Registry: consul.NewRegistry(consul.Config(cfg)),
		config:   config,
		err:      err,
		known:    map[string][]*registry.Service{},
	}
	if err != nil {
		return r, fmt.Errorf("settings from CONSUL_ variables: %w", err)
	}
	return r, nil
}

// CheckAddress returns an error if addr cannot be that of an agent, which is
// host:port, perhaps after http:// or https://, or unix:// and the path of its socket.
// It repeats no password.
func CheckAddress(addr string) error {
	if strings.Contains(addr, "@") {
		return errors.New("has a user or password in it; want host:port, and those in CONSUL_HTTP_AUTH")
	}
	if scheme, _, ok := strings.Cut(addr, "://"); ok && !slices.Contains([]string{"http", "https", "unix"}, scheme) {
		return fmt.Errorf("is %s; want host:port", addr)
	}
	return nil
}

// consulRegistry wraps one of go-micro's Consul registries. It looks services up one at
// a time, because go-micro's makes its API client lazily. It has a watcher of its own,
// because go-micro's changes services that it has already returned. If Consul is
// unavailable, the last known nodes stay in use.
type consulRegistry struct {
	registry.Registry
	config api.Config
	err    error // in the settings

	asking sync.Mutex // held while Consul is asked; taken before mu

	mu      sync.Mutex
	known   map[string][]*registry.Service // what Consul said last, by service
	watches int                            // how many watchers there were
}

// Init does nothing with wrong settings: go-micro would crash for lack of a client.
func (s *consulRegistry) Init(opts ...registry.Option) error {
	if s.err != nil {
		return nil
	}
	config := s.config // of the start: an address in opts replaces a socket
	return s.Registry.Init(append([]registry.Option{consul.Config(&config)}, opts...)...)
}

// Options returns the registry's options. Addrs always has an address.
func (s *consulRegistry) Options() registry.Options {
	opts := s.Registry.Options()
	if len(opts.Addrs) == 0 {
		opts.Addrs = []string{s.config.Address}
	}
	return opts
}

// Register registers the service's first node, or renews its registration.
func (s *consulRegistry) Register(service *registry.Service, opts ...registry.RegisterOption) error {
	return denied(s.Registry.Register(service, opts...))
}

// Deregister takes the service's first node out of Consul.
func (s *consulRegistry) Deregister(service *registry.Service) error {
	return denied(s.Registry.Deregister(service))
}

// GetService returns the nodes of a service whose checks pass. Consul is asked as
// long as it knows of none; after that, a watcher keeps the answer current.
func (s *consulRegistry) GetService(name string) ([]*registry.Service, error) {
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
func (s *consulRegistry) last(name string) []*registry.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[name]
}

// remember keeps a copy of what Consul said.
func (s *consulRegistry) remember(name string, services []*registry.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[name] = registry.Copy(services)
}

// lookUp asks Consul for a service. s.asking must be held.
func (s *consulRegistry) lookUp(name string) ([]*registry.Service, error) {
	services, err := s.Registry.GetService(name)
	if err == nil && !hasNodes(services) {
		err = s.checkACLs(name)
	}
	if err != nil {
		return nil, denied(err)
	}
	for _, service := range services {
		for _, node := range service.Nodes {
			node.Address = bracket(node.Address)
		}
	}
	return services, nil
}

// checkACLs returns an error if ACLs may be why Consul lists no node of a service. Consul
// does not reject such a lookup. It leaves out what the token may not see, and reports
// that only if there is a token. It does reject a query for the service's health at the
// agent.
func (s *consulRegistry) checkACLs(name string) error {
	client, err := s.client(0)
	if err != nil {
		return err
	}
	var state any
	_, err = client.Raw().Query("/v1/agent/health/service/name/"+url.PathEscape(name), &state, nil)
	if err := denied(err); errors.Is(err, ErrDenied) {
		return err
	}
	_, meta, err := client.Health().Service(name, "", false, &api.QueryOptions{AllowStale: true})
	if err == nil && meta.ResultsFilteredByACLs {
		return fmt.Errorf("%w: the token may not see all nodes of %s; it needs service:read for that and node:read for where they run", ErrDenied, name)
	}
	return nil
}

// denied turns Consul's 403 into an ErrDenied that says what to do.
func denied(err error) error {
	if status := (api.StatusError{}); errors.As(err, &status) && status.Code == http.StatusForbidden {
		why := strings.TrimSuffix(strings.TrimPrefix(status.Body, "Permission denied: "), ".")
		return fmt.Errorf("%w by Consul: %s; set CONSUL_HTTP_TOKEN to a token that may", ErrDenied, why)
	}
	return err
}

// client returns an API client, for one of the addresses in turn where there are
// several.
func (s *consulRegistry) client(turn int) (*api.Client, error) {
	config, addrs := s.config, s.Options().Addrs
	config.Address = addrs[turn%len(addrs)]
	client, err := api.NewClient(&config)
	if err != nil {
		return nil, fmt.Errorf("asking Consul at %s: %w", config.Address, err)
	}
	return client, nil
}

func hasNodes(services []*registry.Service) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool { return len(s.Nodes) > 0 })
}

// bracket turns fd00::2:8080, as go-micro joins IPv6 addresses and ports, into
// [fd00::2]:8080.
func bracket(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasPrefix(address, "[") || !strings.Contains(address[:i], ":") {
		return address
	}
	return net.JoinHostPort(address[:i], address[i+1:])
}

// Address returns the first address of r: host:port, or the path of a socket; "" if r has
// none, as mdns.
func Address(r registry.Registry) string {
	if addrs := r.Options().Addrs; len(addrs) > 0 {
		return hostPort(addrs[0])
	}
	return ""
}

// hostPort strips the scheme that Consul's addresses may have, and adds the port
// that they may lack but for sockets.
func hostPort(addr string) string {
	scheme, after, ok := strings.Cut(addr, "://")
	if scheme == "unix" {
		return after
	}
	if ok {
		addr = after
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), "8500") // as go-micro does
	}
	return addr
}
