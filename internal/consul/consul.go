// Package consul is go-micro's Consul registry for many callers and many services. It adds
// what that registry lacks: timeouts, the settings in Consul's own variables, ACLs, IPv6
// addresses, several agents, and watchers that keep up with each other.
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
	"sync/atomic"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
	"golang.org/x/sync/singleflight"
)

// DefaultAddress is that of an agent on this machine.
const DefaultAddress = "127.0.0.1:8500"

// ErrDenied is the error of what Consul's ACLs do not allow.
var ErrDenied = errors.New("permission denied")

// NewRegistry returns go-micro's Consul registry for the agent that CONSUL_HTTP_ADDR
// (DefaultAddress without it) or, later, registry.Addrs names, with the settings of
// Consul's other CONSUL_ variables. Of several addresses it uses the first whose agent
// answers, and stays with that one.
//
// The error says which of the variables cannot be used. The registry is usable as a
// value even then, so that a program may go on with another registry.
//
// Where Consul has ACLs, registering takes a token with service:write for the
// service, and looking it up one with service:read for it and node:read for the
// nodes that it is on.
//
// GetService returns the nodes whose checks pass. As long as a watcher of the service
// follows Consul, the registry answers from memory. If Consul is unavailable, the last
// known nodes stay in use.
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
	r := &consulRegistry{
		config:     *cfg,
		registrars: map[string]registry.Registry{},
		services:   map[string]*service{},
	}
	if err == nil {
		_, err = api.NewClient(cfg) // reads CONSUL_HTTP_TOKEN_FILE
	}
	if wrong := CheckAddress(r.config.Address); wrong != nil {
		err = fmt.Errorf("CONSUL_HTTP_ADDR %w", wrong)
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

// consulRegistry gives each lookup one of go-micro's Consul registries of its own, because
// go-micro's makes its API client anew for each request, unsynchronized, and sticks to the
// first address that worked. It has a watcher of its own, because go-micro's changes
// services that it has already returned.
type consulRegistry struct {
	config  api.Config // a template, never changed
	lookups singleflight.Group
	tickets atomic.Uint64 // of lookups, in the order in which they began
	current atomic.Int64  // index of the address in use

	registering sync.Mutex                   // orders registrations
	registrars  map[string]registry.Registry // by address; each remembers its own registrations

	mu       sync.Mutex // never held during I/O
	opts     []registry.Option
	addrs    []string
	services map[string]*service
	watches  int // how many watchers there were
}

// Init sets options. It does not ask Consul for anything.
func (r *consulRegistry) Init(opts ...registry.Option) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts = append(r.opts, opts...)
	var all registry.Options
	for _, o := range r.opts {
		o(&all)
	}
	r.addrs = all.Addrs
	r.current.Store(0)
	clear(r.registrars)
	return nil
}

// Options returns the options that Init has set. Addrs always has an address.
func (r *consulRegistry) Options() registry.Options {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all registry.Options
	for _, o := range r.opts {
		o(&all)
	}
	all.Addrs = r.addresses()
	return all
}

// addresses returns the addresses of agents. r.mu must be held.
func (r *consulRegistry) addresses() []string {
	if len(r.addrs) > 0 {
		return r.addrs
	}
	return []string{r.config.Address}
}

// String returns the name of the registry.
func (r *consulRegistry) String() string { return "consul" }

// Register registers the service's first node, or renews its registration.
func (r *consulRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	return r.try(func(address string) error { return r.registrar(address).Register(s, opts...) })
}

// Deregister removes the service's first node from Consul.
func (r *consulRegistry) Deregister(s *registry.Service) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	return r.try(func(address string) error { return r.registrar(address).Deregister(s) })
}

// ListServices returns the names of all services.
func (r *consulRegistry) ListServices() (services []*registry.Service, err error) {
	err = r.try(func(address string) error {
		services, err = r.stock(address).ListServices()
		return err
	})
	return services, err
}

// registrar returns the registry that has registered nodes at the agent with that address.
// r.registering must be held.
func (r *consulRegistry) registrar(address string) registry.Registry {
	if r.registrars[address] == nil {
		r.registrars[address] = r.stock(address)
	}
	return r.registrars[address]
}

// stock returns one of go-micro's registries, for the agent with that address.
func (r *consulRegistry) stock(address string) registry.Registry {
	config := r.configFor(address)
	r.mu.Lock()
	opts := slices.Clone(r.opts)
	r.mu.Unlock()
	// Without addresses go-micro uses that of the config, and probes none.
	return consul.NewRegistry(append(opts, registry.Addrs(), consul.Config(&config))...)
}

// configFor returns a config of its own for the agent with that address: whoever gets a
// config changes it.
func (r *consulRegistry) configFor(address string) api.Config {
	config, client := r.config, *r.config.HttpClient
	config.Address, config.HttpClient = withPort(address), &client
	return config
}

// try calls f with one address after another, beginning with that in use, until an agent
// answers.
func (r *consulRegistry) try(f func(address string) error) (err error) {
	r.mu.Lock()
	addresses := r.addresses()
	r.mu.Unlock()
	first := int(r.current.Load())
	for i := range addresses {
		n := (first + i) % len(addresses)
		err = f(addresses[n])
		var unanswered *url.Error
		if !errors.As(err, &unanswered) {
			r.current.Store(int64(n))
			break
		}
	}
	return denied(err)
}

// GetService returns the nodes of a service whose checks pass; see NewRegistry.
func (r *consulRegistry) GetService(name string) ([]*registry.Service, error) {
	if known, current := r.known(name); current && hasNodes(known) {
		return registry.Copy(known), nil
	}
	services, err, _ := r.lookups.Do(name, func() (any, error) { return r.lookUp(name, false) })
	if err != nil {
		if known, _ := r.known(name); hasNodes(known) {
			return registry.Copy(known), nil
		}
		return nil, err
	}
	return registry.Copy(services.([]*registry.Service)), nil
}

// lookUp asks Consul for a service, and remembers the answer. If unlessEmpty is set, it
// does not remember that there is no node.
func (r *consulRegistry) lookUp(name string, unlessEmpty bool) ([]*registry.Service, error) {
	ticket := r.tickets.Add(1)
	var services []*registry.Service
	err := r.try(func(address string) (err error) {
		services, err = r.stock(address).GetService(name)
		if err == nil && !hasNodes(services) {
			err = r.checkACLs(address, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, service := range services {
		for _, node := range service.Nodes {
			node.Address = bracket(node.Address)
		}
	}
	if !unlessEmpty || hasNodes(services) {
		r.remember(name, ticket, services)
	}
	return services, nil
}

// checkACLs returns an error if ACLs may be why Consul lists no node of a service. Consul
// does not reject such a lookup. It leaves out what the token may not see, and reports
// that only if there is a token. It does reject a query for the service's health at the
// agent.
func (r *consulRegistry) checkACLs(address, name string) error {
	config := r.configFor(address)
	client, err := api.NewClient(&config)
	if err != nil {
		return fmt.Errorf("asking Consul at %s: %w", address, err)
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

// hostPort returns the host:port of an agent's address, or the path of its socket.
func hostPort(addr string) string {
	addr = withPort(addr)
	if _, after, ok := strings.Cut(addr, "://"); ok {
		return after
	}
	return addr
}

// withPort adds Consul's port to an address without one, but for sockets.
func withPort(addr string) string {
	scheme, host, ok := strings.Cut(addr, "://")
	if !ok {
		scheme, host = "", addr
	}
	if scheme == "unix" {
		return addr
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "8500")
	}
	if ok {
		host = scheme + "://" + host
	}
	return host
}
