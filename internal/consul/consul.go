// Package consul is go-micro's Consul registry for many callers and many services. It adds
// what that registry lacks: timeouts, the settings in Consul's own variables, ACLs, IPv6
// addresses, several agents, and watchers that keep up with each other.
package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
	"github.com/micro/go-micro/util/log"
	"golang.org/x/sync/singleflight"
)

// NewRegistry returns go-micro's Consul registry for the agent that CONSUL_HTTP_ADDR
// (DefaultAddress without it) or, later, registry.Addrs names, with the settings of
// Consul's other CONSUL_ variables. It uses no proxy. Of several addresses it uses the first
// whose agent answers. It asks an agent that did not answer again 5 s later, and so moves
// back when the agent returns. The agents have to be of one cluster.
//
// The error says which of the variables cannot be used. The registry is usable as a
// value even then, so that a program may go on with another registry.
//
// Where Consul has ACLs, registering takes a token with service:write for the
// service, and looking it up one with service:read for it and node:read for the
// nodes that it is on. CONSUL_HTTP_TOKEN_FILE is read again when Consul denies a request,
// and the request is repeated if the token has changed.
//
// GetService returns the nodes whose checks pass. As long as a watcher of the service
// follows Consul, the registry answers from memory. If Consul is unavailable, the last
// known nodes stay in use. Nodes without an address that can be called, and tags that
// go-micro cannot decode, are ignored; both are logged once.
func NewRegistry() (registry.Registry, error) {
	cfg := api.DefaultConfig()
	cfg.Address = strings.TrimSpace(cfg.Address)
	if strings.TrimSpace(os.Getenv(api.HTTPAddrEnvName)) == "" {
		cfg.Address = DefaultAddress // the library's is localhost, which may be another's over IPv6
	}
	cfg.Transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	// No proxy: the agent runs on this host or next to it, and Docker sets HTTP_PROXY and
	// HTTPS_PROXY in all containers.
	cfg.Transport.Proxy = nil
	r := &consulRegistry{
		registrars:   map[string]registrar{},
		registeredAt: map[string][]string{},
		guards:       map[string]*guard{},
		failed:       map[string]time.Time{},
		services:     map[string]*service{},
	}
	wrong := CheckAddress(cfg.Address)
	if wrong != nil {
		wrong = fmt.Errorf("CONSUL_HTTP_ADDR %w", wrong)
	}
	// Given a config without an HTTP client, go-micro makes one that ignores
	// all of the above.
	client, err := api.NewHttpClient(cfg.Transport, cfg.TLSConfig)
	if err != nil {
		client = &http.Client{Transport: cfg.Transport}
	}
	cfg.HttpClient = client
	if cfg.TokenFile != "" {
		var tokenErr error
		if r.token, tokenErr = openTokenFile(cfg.TokenFile); err == nil {
			err = tokenErr
		}
		// go-micro makes an API client for each request, which would read the file each time,
		// and crashes if it is missing for a moment.
		cfg.TokenFile = os.DevNull
	}
	r.config = *cfg
	if err = cmp.Or(wrong, err); err != nil {
		return r, fmt.Errorf("settings from CONSUL_ variables: %w", err)
	}
	return r, nil
}

// consulRegistry gives each lookup one of go-micro's Consul registries of its own, because
// go-micro's makes its API client anew for each request, unsynchronized, and sticks to the
// first address that worked. It has a watcher of its own, because go-micro's changes
// services that it has already returned.
type consulRegistry struct {
	config  api.Config // a template, never changed
	lookups singleflight.Group
	tickets atomic.Uint64 // of lookups, in the order in which they began
	token   *tokenFile    // nil without CONSUL_HTTP_TOKEN_FILE
	notes   notes
	polling sync.Once // logs that Consul holds no blocking query

	registering  sync.Mutex           // orders registrations
	registrars   map[string]registrar // by address
	registeredAt map[string][]string  // addresses of agents that may have a node, by its ID
	guards       map[string]*guard    // by the ID of a node

	mu       sync.Mutex // never held during I/O
	opts     []registry.Option
	addrs    []string
	failed   map[string]time.Time // when each agent failed last, by address
	services map[string]*service
}

// Init sets options. It does not ask Consul for anything. The error says which address
// cannot be that of an agent.
func (r *consulRegistry) Init(opts ...registry.Option) error {
	var given registry.Options
	for _, o := range opts {
		o(&given)
	}
	for _, addr := range trimAddresses(given.Addrs) {
		if err := CheckAddress(addr); err != nil {
			return fmt.Errorf("address of Consul %w", err)
		}
	}
	r.registering.Lock()
	defer r.registering.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts = append(r.opts, opts...)
	var all registry.Options
	for _, o := range r.opts {
		o(&all)
	}
	r.addrs = trimAddresses(all.Addrs)
	clear(r.failed)
	clear(r.registrars)
	clear(r.registeredAt)
	for id := range r.guards {
		r.unguard(id)
	}
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

// Register registers the service's first node, or renews its registration. With several
// agents, the node moves to the next agent as soon as its own agent is gone. When its own
// agent has returned, the next Register moves the node back, and the Register after that
// removes the node from the other agent.
func (r *consulRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	return r.register(0, s, opts...)
}

// register is Register. The watch of the agent begins after pause. r.registering must be held.
func (r *consulRegistry) register(pause time.Duration, s *registry.Service, opts ...registry.RegisterOption) error {
	if len(s.Nodes) == 0 {
		return errors.New("registering in Consul: the service has no node")
	}
	id := s.Nodes[0].Id
	var at string
	err := r.try(func(address string, _ bool) error {
		at = address
		if !slices.Contains(r.registeredAt[id], address) {
			r.registeredAt[id] = append(r.registeredAt[id], address)
		}
		return otherAgent(r.registrar(address).Register(s, opts...))
	})
	if err != nil {
		return err
	}
	g := r.guards[id]
	moved := g == nil || g.address != at
	r.guard(at, pause, s, opts)
	if len(r.registeredAt[id]) < 2 {
		return nil
	}
	if moved {
		log.Logf("Registered %s in consul at %s; of %d agents it is the first that answers", s.Name, hostPort(at), len(r.agents()))
		return nil // the agent tells the catalog in a moment, and the others have the node until then
	}
	_, _ = r.deregister(s, func(address string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return address != at && time.Since(r.failed[address]) >= skipTime
	})
	return nil
}

// Deregister removes the service's first node from the agents that it was registered at. It
// succeeds if one of them has removed it: Consul removes those of an agent that is gone.
func (r *consulRegistry) Deregister(s *registry.Service) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	if len(s.Nodes) == 0 || len(r.registeredAt[s.Nodes[0].Id]) == 0 {
		return r.try(func(address string, _ bool) error { return r.registrar(address).Deregister(s) })
	}
	r.unguard(s.Nodes[0].Id)
	removed, err := r.deregister(s, func(string) bool { return true })
	if removed {
		delete(r.registeredAt, s.Nodes[0].Id)
		return nil
	}
	return err
}

// deregister removes the service's first node from those of the agents that may have it
// which choose selects. It reports whether one has removed it, and the errors of the others.
// r.registering must be held.
func (r *consulRegistry) deregister(s *registry.Service, choose func(address string) bool) (removed bool, err error) {
	id := s.Nodes[0].Id
	var failed agentErrors
	for _, address := range r.agents() {
		if !slices.Contains(r.registeredAt[id], address) || !choose(address) {
			continue
		}
		err := r.denied(r.registrar(address).Deregister(s))
		r.note(address, err)
		if status := (api.StatusError{}); errors.As(err, &status) && status.Code == http.StatusNotFound {
			err = nil // it was not there any more
		}
		if err != nil {
			failed = append(failed, agentError{address, err})
			continue
		}
		removed = true
		r.registeredAt[id] = slices.DeleteFunc(r.registeredAt[id], func(a string) bool { return a == address })
	}
	if len(failed) == 0 {
		return removed, nil
	}
	return removed, failed
}

// ListServices returns the names of all services.
func (r *consulRegistry) ListServices() (services []*registry.Service, err error) {
	err = r.try(func(address string, last bool) error {
		services, err = r.stock(address, lookupTimeout(last)).ListServices()
		return err
	})
	return services, err
}

// registrar remembers what it has registered at one agent, with one token.
type registrar struct {
	registry.Registry
	token string // "" without CONSUL_HTTP_TOKEN_FILE
}

// registrar returns the registrar for the agent with that address. After the token has
// changed, it returns a new one, which registers nodes again instead of only renewing them:
// the agent reports a node to the catalog with the token that registered it, and reports no
// change any more when that token is deleted. r.registering must be held.
func (r *consulRegistry) registrar(address string) registry.Registry {
	token := r.token.current()
	if known, ok := r.registrars[address]; !ok || known.token != token {
		r.registrars[address] = registrar{r.stock(address, answerTimeout), token}
	}
	return r.registrars[address]
}

// stock returns one of go-micro's registries, for the agent with that address. It waits for
// timeout for each answer.
func (r *consulRegistry) stock(address string, timeout time.Duration) registry.Registry {
	config := r.configFor(address, timeout)
	r.mu.Lock()
	opts := slices.Clone(r.opts)
	r.mu.Unlock()
	// Without addresses go-micro uses that of the config, and probes none.
	return consul.NewRegistry(append(opts, registry.Addrs(), consul.Config(&config))...)
}

// lookupTimeout is how long to wait for the answer to a lookup, of the last agent or of one
// before it.
func lookupTimeout(last bool) time.Duration {
	if last {
		return answerTimeout
	}
	return firstAnswerTimeout
}

// configFor returns a config of its own for the agent with that address: whoever gets a
// config changes it.
func (r *consulRegistry) configFor(address string, timeout time.Duration) api.Config {
	config, client := r.config, *r.config.HttpClient
	config.Address, config.HttpClient = withPort(address), &client
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		// Given such an address, the library replaces the HTTP client by one of its own.
		config.Address = "localhost"
		transport := r.config.Transport.Clone()
		transport.DisableKeepAlives = true // nobody closes its idle connections
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
		}
		client.Transport = transport
	}
	client.Transport = catalogTransport{client.Transport, &r.notes}
	if r.token != nil {
		client.Transport = tokenTransport{client.Transport, r.token}
	}
	client.Transport = timeoutTransport{client.Transport, timeout}
	return config
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
	err := r.try(func(address string, last bool) (err error) {
		timeout := lookupTimeout(last)
		services, err = r.stock(address, timeout).GetService(name)
		if err != nil || hasNodes(services) {
			return err
		}
		renewed, err := r.checkACLs(address, timeout, name)
		if renewed {
			services, err = r.stock(address, timeout).GetService(name)
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
// agent. checkACLs reports whether the token was renewed meanwhile, so that the lookup is to
// be repeated.
func (r *consulRegistry) checkACLs(address string, timeout time.Duration, name string) (renewed bool, err error) {
	config := r.configFor(address, timeout)
	client, err := api.NewClient(&config)
	if err != nil {
		return false, fmt.Errorf("asking Consul at %s: %w", address, err)
	}
	before := r.token.current()
	var state any
	_, err = client.Raw().Query("/v1/agent/health/service/name/"+url.PathEscape(name), &state, nil)
	if r.token.current() != before {
		return true, nil
	}
	if err := r.denied(err); errors.Is(err, ErrDenied) {
		return false, err
	}
	_, meta, err := client.Health().Service(name, "", false, &api.QueryOptions{AllowStale: true})
	if err == nil && meta.ResultsFilteredByACLs {
		return false, fmt.Errorf("%w: the token may not see all nodes of %s; it needs service:read for that and node:read for where they run", ErrDenied, name)
	}
	return false, nil
}

func hasNodes(services []*registry.Service) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool { return len(s.Nodes) > 0 })
}
