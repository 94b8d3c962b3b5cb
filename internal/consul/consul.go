// Package consul is a Consul registry for go-micro, for many concurrent callers and many services.
// It wraps go-micro's own Consul registry, and adds timeouts. It also supports the settings in
// Consul's CONSUL_ variables, ACLs, IPv6 addresses, and several agents. Each watcher of a service
// reports all changes of the service.
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

// NewRegistry returns a registry with the settings in Consul's CONSUL_ variables.
// CONSUL_HTTP_ADDR is the address of the agent; the default is DefaultAddress. The option
// registry.Addrs replaces this address with one or several addresses. The registry uses no HTTP
// proxy.
//
// If there are several addresses, the registry uses the first agent that responds. For 5 s after a
// failure, the registry tries the failed agent last. Then the agent has its old place in the order
// again. All agents must belong to one cluster.
//
// NewRegistry returns an error if a variable cannot be used. Even then, NewRegistry also returns a
// registry. The methods Init and String of this registry work, so a program that uses another
// registry can ignore the error.
//
// If Consul has ACLs, a registration needs a token with service:write for the service. A lookup
// needs a token with service:read for the service and node:read for the hosts that run the
// service. When Consul denies a request, the registry reads CONSUL_HTTP_TOKEN_FILE again. If the
// token has changed, the registry repeats the request.
//
// GetService returns the nodes that have no critical check. If nodes are known, and a watcher of
// the service receives changes from Consul, GetService returns the nodes from memory. If a lookup
// fails, GetService returns the last known nodes, or the error if no nodes are known. After an
// outage, Consul may list no node. If the service has a watcher, GetService then keeps the known
// nodes until the watcher reports their deletion. GetService ignores nodes without a valid address,
// and tags that go-micro cannot decode. The registry logs each ignored node once and each ignored
// tag once, but at most 100 such lines in total. It does not log tags that do not look like
// go-micro's.
func NewRegistry() (registry.Registry, error) {
	cfg := api.DefaultConfig()
	cfg.Address = strings.TrimSpace(cfg.Address)
	if strings.TrimSpace(os.Getenv(api.HTTPAddrEnvName)) == "" {
		// The library's default is localhost. This name may resolve to ::1, and another program may
		// listen at ::1.
		cfg.Address = DefaultAddress
	}
	cfg.Transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	// Use no proxy: the agent runs on this host or near it. But Docker can set HTTP_PROXY and
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
	// Without an HTTP client in the config, go-micro creates a client that ignores cfg.Transport
	// and cfg.TLSConfig.
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
		// go-micro creates an API client for each request. Each client would read the file, and
		// go-micro would panic if the file were missing for a moment.
		cfg.TokenFile = os.DevNull
	}
	r.config = *cfg
	if err = cmp.Or(wrong, err); err != nil {
		return r, fmt.Errorf("settings from CONSUL_ variables: %w", err)
	}
	return r, nil
}

// consulRegistry creates a new go-micro Consul registry for each lookup. Concurrent lookups of one
// go-micro registry would cause data races: for each request, go-micro creates an API client, and
// so modifies its config without a lock. If a go-micro registry has several addresses, it also
// keeps the first address that has worked.
//
// consulRegistry has its own watcher, because go-micro's watcher modifies services that it has
// already returned.
type consulRegistry struct {
	config  api.Config // a template, never modified
	lookups singleflight.Group
	tickets atomic.Uint64 // lookups are numbered from 1; this is the number of the last lookup
	token   *tokenFile    // nil without CONSUL_HTTP_TOKEN_FILE
	notes   notes
	polling sync.Once // logs once that Consul does not hold blocking queries

	registering  sync.Mutex           // serializes registrations
	registrars   map[string]registrar // by agent address
	registeredAt map[string][]string  // addresses of the agents that may have a node, by node ID
	guards       map[string]*guard    // by node ID

	mu       sync.Mutex // never held during I/O
	opts     []registry.Option
	addrs    []string
	failed   map[string]time.Time // time of each agent's last failure, by agent address
	services map[string]*service  // by name
}

// Init adds options. It sends no request to Consul. It returns an error if an address is not
// valid; see CheckAddress.
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

// Options returns the options that Init has set. If registry.Addrs is not set, Options.Addrs has
// the address of CONSUL_HTTP_ADDR, or DefaultAddress.
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

// addresses returns the addresses of all agents in the configured order. r.mu must be held.
func (r *consulRegistry) addresses() []string {
	if len(r.addrs) > 0 {
		return r.addrs
	}
	return []string{r.config.Address}
}

// String returns the name of the registry.
func (r *consulRegistry) String() string { return "consul" }

// Register registers the service's first node, or renews its registration. If there are several
// agents, and the node's agent fails, the node moves to the next agent at once. From 5 s after the
// failure on, Register tries the first agent again. When the first agent is up, Register moves the
// node back. A later Register removes the node from the other agent.
func (r *consulRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	r.registering.Lock()
	defer r.registering.Unlock()
	return r.register(0, s, opts...)
}

// register implements Register. The watch of the agent begins after pause. r.registering must be
// held.
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
		// The new agent reports the node to the catalog a moment later. Until then, callers find
		// the node at the other agents. So the node stays registered there until the next Register.
		return nil
	}
	_, _ = r.deregister(s, func(address string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return address != at && time.Since(r.failed[address]) >= skipTime
	})
	return nil
}

// Deregister removes the service's first node from all agents at which the node was registered. It
// succeeds if at least one agent has removed the node: Consul itself removes the nodes of an agent
// that is gone.
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

// deregister removes the service's first node from agents. It skips agents that cannot have the
// node, and agents for which choose returns false. removed reports whether an agent has removed
// the node. err has the errors of the agents that failed. r.registering must be held.
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
			err = nil // the agent no longer has the node
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
		services, err = r.stock(r.configFor(address, lookupTimeout(last))).ListServices()
		return err
	})
	return services, err
}

// registrar is a go-micro registry for the registrations at one agent with one token. After the
// first registration of a node, it only renews the registration.
type registrar struct {
	registry.Registry
	token string // "" without CONSUL_HTTP_TOKEN_FILE
}

// registrar returns the registrar for the agent at address. r.registering must be held.
//
// After the token has changed, registrar returns a new registrar, which registers the nodes
// again. Renewals would not be enough: an agent reports a node to the catalog with the token that
// registered the node. If this token is deleted, the agent can no longer report changes of the
// node.
func (r *consulRegistry) registrar(address string) registry.Registry {
	token := r.token.current()
	if known, ok := r.registrars[address]; !ok || known.token != token {
		r.registrars[address] = registrar{r.stock(r.configFor(address, answerTimeout)), token}
	}
	return r.registrars[address]
}

// stock returns a new go-micro registry with config, which must come from configFor.
func (r *consulRegistry) stock(config api.Config) registry.Registry {
	r.mu.Lock()
	opts := slices.Clone(r.opts)
	r.mu.Unlock()
	// The empty registry.Addrs makes go-micro use the address in config. For addresses in
	// registry.Addrs, go-micro would first send a probe.
	return consul.NewRegistry(append(opts, registry.Addrs(), consul.Config(&config))...)
}

// lookupTimeout returns the timeout of a lookup at one agent. last reports whether this agent is
// the last to try.
func lookupTimeout(last bool) time.Duration {
	if last {
		return answerTimeout
	}
	return firstAnswerTimeout
}

// configFor returns a new config for the agent at address. timeout limits each request; see
// timeoutTransport. Each caller needs its own copy because api.NewClient modifies its argument.
func (r *consulRegistry) configFor(address string, timeout time.Duration) api.Config {
	config, client := r.config, *r.config.HttpClient
	config.Address, config.HttpClient = withPort(address), &client
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		// For a unix:// address, api.NewClient would replace the HTTP client.
		config.Address = "localhost"
		transport := r.config.Transport.Clone()
		transport.DisableKeepAlives = true // nothing would close idle connections of this clone
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

// GetService returns the nodes of a service that have no critical check; see NewRegistry.
func (r *consulRegistry) GetService(name string) ([]*registry.Service, error) {
	known, watched, current := r.known(name)
	if current && hasNodes(known) {
		return registry.Copy(known), nil
	}
	// If Consul has just returned from an outage, an empty list may mean that Consul has lost its
	// catalog. Leave it to the watcher when to believe this list; see recoverTime.
	_, err, _ := r.lookups.Do(name, func() (any, error) {
		return r.lookUp(name, watched)
	})
	known, _, _ = r.known(name)
	if err != nil && !hasNodes(known) {
		return nil, err
	}
	return registry.Copy(known), nil
}

// lookUp queries Consul for a service, and stores the result. If unlessEmpty is true, lookUp does
// not store a result without nodes. index is Consul's index of the result, or 0 if Consul's
// response has no index.
func (r *consulRegistry) lookUp(name string, unlessEmpty bool) (index uint64, err error) {
	ticket := r.tickets.Add(1)
	var services []*registry.Service
	err = r.try(func(address string, last bool) (err error) {
		timeout := lookupTimeout(last)
		lookUp := func() error {
			config := r.configFor(address, timeout)
			config.HttpClient.Transport = indexTransport{config.HttpClient.Transport, &index}
			services, err = r.stock(config).GetService(name)
			return err
		}
		if err := lookUp(); err != nil || hasNodes(services) {
			return err
		}
		renewed, err := r.checkACLs(address, timeout, name)
		if renewed {
			return lookUp()
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, service := range services {
		for _, node := range service.Nodes {
			node.Address = bracket(node.Address)
		}
	}
	if !unlessEmpty || hasNodes(services) {
		r.remember(name, ticket, index, services)
	}
	return index, nil
}

// checkACLs returns an ErrDenied if ACLs may be the reason why Consul lists no node of a service.
// If the token file had a new token, renewed is true, and the caller must repeat the lookup.
//
// If the token has no permission to see a node, Consul still accepts the lookup. Consul leaves the
// node out of its response, and reports this only if the request has a token. But Consul rejects a
// query for the service's health at the agent if the token has no permission for this query. So
// checkACLs sends this query first. Then checkACLs repeats the lookup to learn whether Consul
// reports that it has left nodes out.
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
