package balancer

import (
	"context"
	"errors"
	"time"

	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/cache"
)

const (
	// refreshInterval is the maximum age of a lookup. If the last lookup of a service is older, a
	// call starts a new lookup in the background, even if the registry has reported no change. Some
	// registries report no changes, and a watcher may lose a change.
	refreshInterval = 10 * time.Second
	// retryInterval is the pause after a lookup that found no node. During this pause, calls fail
	// with the error of the lookup. Without the pause, many callers would cause many requests to
	// the registry.
	retryInterval = 200 * time.Millisecond
)

// Selector returns the balancer as a selector with opts, for micro.Selector or client.Selector. The
// option selector.Registry is required: set it in opts, or later with the selector's Init. The
// selector uses go-micro's cache of the registry. From the first lookup of a service on, the cache
// watches the registry for changes of this service.
//
// For each attempt, the strategy chooses from the nodes that pass these three rules. The balancer
// applies the rules in this order:
//
//  1. The node is connected, or the first attempt to connect to it has not ended.
//  2. The node is not ejected. Five consecutive server errors eject a node for three seconds.
//  3. No earlier attempt of the same call went to the node.
//
// If no node would be left after a rule, the balancer skips this rule.
//
// The strategy gets the nodes in the order of their IDs, because a registry may list the nodes in a
// different order each time. Each balancer starts this list at a random node. Otherwise, programs
// that make one call each would all call the same node, because the counter of go-plugins' round
// robin starts at 0 in each process.
//
// The selector computes the list of nodes when nodes, connections or ejections change, and not for
// each call. Only retries and calls with filters need their own list.
func (b *Balancer) Selector(opts ...selector.Option) selector.Selector {
	s := &nodeSelector{b}
	_ = s.Init(opts...) // never fails
	return s
}

// nodeSelector implements selector.Selector with a Balancer.
type nodeSelector struct{ balancer *Balancer }

// Init sets the options in opts. If opts change the registry, Init closes all connections.
func (s *nodeSelector) Init(opts ...selector.Option) error {
	b := s.balancer
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.options.Registry
	for _, o := range opts {
		o(&b.options)
	}
	if b.options.Registry == before {
		return nil
	}
	if b.cache != nil {
		b.cache.Stop()
	}
	b.cache = cache.New(&reportingRegistry{b.options.Registry, b})
	for _, g := range b.groups {
		g.close()
	}
	clear(b.groups)
	return nil
}

// Options returns the options that Init has set.
func (s *nodeSelector) Options() selector.Options {
	s.balancer.mu.RLock()
	defer s.balancer.mu.RUnlock()
	return s.balancer.options
}

// Select returns a function that chooses the node for each attempt of one call. Select waits for
// the registry if no node of the service is known. It returns the registry's error, or
// selector.ErrNoneAvailable if there is no node.
func (s *nodeSelector) Select(service string, opts ...selector.SelectOption) (selector.Next, error) {
	o := selector.SelectOptions{Strategy: s.Options().Strategy}
	for _, opt := range opts {
		opt(&o)
	}
	if o.Strategy == nil {
		o.Strategy = selector.Random
	}
	g, err := s.balancer.groupWithNodes(context.Background(), service)
	if err != nil {
		return nil, err
	}
	offer := g.offer
	if len(o.Filters) > 0 {
		versions := g.copy()
		for _, filter := range o.Filters {
			versions = filter(versions)
		}
		nodes := s.balancer.sorted(versions)
		if len(nodes) == 0 {
			return nil, selector.ErrNoneAvailable
		}
		offer = func(tried []string) []*registry.Service {
			best, _ := g.best(nodes, tried)
			return []*registry.Service{{Name: service, Nodes: best}}
		}
	}
	var tried []string // addresses; needs no lock, because a call's attempts do not overlap
	return func() (*registry.Node, error) {
		node, err := o.Strategy(offer(tried))()
		if err == nil {
			if len(tried) > 0 {
				g.retries.Add(1)
			}
			tried = append(tried, node.Address)
		}
		return node, err
	}, nil
}

// Mark does nothing, because WrapCall records how attempts end.
func (s *nodeSelector) Mark(string, *registry.Node, error) {}

// Reset does nothing.
func (s *nodeSelector) Reset(string) {}

// Close closes the balancer.
func (s *nodeSelector) Close() error {
	s.balancer.Close()
	return nil
}

// String returns the name of the selector.
func (s *nodeSelector) String() string { return "balancer" }

// groupWithNodes returns the group of a service. If no node is known, it waits for a lookup. It
// returns the error of the lookup, or the error of ctx if ctx ends first.
func (b *Balancer) groupWithNodes(ctx context.Context, service string) (*group, error) {
	g := b.group(service)
	if known := g.known.Load(); known != nil {
		if time.Since(known.at) > refreshInterval {
			g.lookUp(false)
		}
		return g, nil
	}
	l := g.lookUp(false)
	select {
	case <-l.done:
		return g, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lookup is one lookup of a service's nodes.
type lookup struct {
	done chan struct{} // closed when the lookup ends
	err  error         // valid after done is closed
}

// lookUp returns a lookup of the service's nodes. If a lookup is in progress, lookUp returns this
// lookup. If the last lookup failed less than retryInterval ago, lookUp returns the failed lookup.
// Otherwise, lookUp starts a new lookup in the background.
//
// If changed is true, the registry has reported a change. In this case, a lookup in progress is
// repeated when it ends. If no lookup is in progress, lookUp starts a new lookup at once, even
// after a failed lookup.
func (g *group) lookUp(changed bool) *lookup {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch l := g.lookup; {
	case l == nil:
	case g.lookingUp:
		g.repeat = g.repeat || changed
		return l
	case l.err != nil && !changed && time.Since(g.lookedUp) < retryInterval:
		return l
	}
	l := &lookup{done: make(chan struct{})}
	g.lookup, g.lookingUp = l, true
	go func() {
		defer close(l.done)
		for {
			versions, err := g.balancer.ask(g.service)
			if l.err = err; g.set(versions, err) {
				return
			}
		}
	}()
	return l
}

// ask queries go-micro's cache for the nodes of a service. The cache queries the registry if
// necessary.
func (b *Balancer) ask(service string) ([]*registry.Service, error) {
	b.mu.RLock()
	cache := b.cache
	b.mu.RUnlock()
	if cache == nil {
		return nil, errors.New("no registry: the selector needs the option selector.Registry")
	}
	versions, err := cache.GetService(service)
	if err == nil && len(b.sorted(versions)) == 0 {
		err = selector.ErrNoneAvailable
	}
	return versions, err
}

// reportingRegistry is a registry whose watchers also report changes to the balancer.
type reportingRegistry struct {
	registry.Registry
	balancer *Balancer
}

func (r *reportingRegistry) Watch(opts ...registry.WatchOption) (registry.Watcher, error) {
	w, err := r.Registry.Watch(opts...)
	if err != nil {
		return nil, err
	}
	var wo registry.WatchOptions
	for _, o := range opts {
		o(&wo)
	}
	return &reportingWatcher{Watcher: w, report: func() { r.balancer.group(wo.Service).lookUp(true) }}, nil
}

type reportingWatcher struct {
	registry.Watcher
	report     func()
	unreported bool // the last result of Next is not reported yet
}

// Next reports the previous change to the balancer, and returns the next change. It reports a
// change so late because the cache applies the change before it calls Next again. The service in
// the result is a copy, because the cache modifies the service, and the registry may have returned
// its own data.
func (w *reportingWatcher) Next() (*registry.Result, error) {
	if w.unreported {
		w.report()
	}
	result, err := w.Watcher.Next()
	w.unreported = err == nil
	if err == nil && result.Service != nil {
		result = &registry.Result{Action: result.Action, Service: registry.Copy([]*registry.Service{result.Service})[0]}
	}
	return result, err
}
