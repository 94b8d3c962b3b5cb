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
	// refreshInterval is how long a list of nodes is used without a change reported by the
	// registry. It covers a registry that reports none, and a watcher that lost one.
	refreshInterval = 10 * time.Second
	// retryInterval is the pause after a lookup that found no node. Calls in that time fail
	// with the error of the lookup, so that many callers do not become many requests.
	retryInterval = 200 * time.Millisecond
)

// Selector returns the balancer as a selector with opts, for micro.Selector or
// client.Selector. It needs selector.Registry among opts, or as an option of its Init. It
// follows the registry with go-micro's cache.
//
// For each attempt it has the strategy choose from the nodes that are connected; of those,
// the nodes that are not ejected; of those, the nodes that the same call was not attempted
// at. A rule that leaves no node is skipped. Five consecutive server errors eject a node
// for three seconds.
//
// The strategy gets the nodes in the order of their IDs, from a random one on. The counter
// of go-plugins' round robin starts at 0 in each process, and a registry may list nodes in
// any order: without both measures, programs that make one call each would not spread
// their calls.
//
// The list of nodes is made when the registry reports a change, or a connection changes
// its state, and not for each call.
func (b *Balancer) Selector(opts ...selector.Option) selector.Selector {
	s := &nodeSelector{b}
	_ = s.Init(opts...) // never fails
	return s
}

type nodeSelector struct{ balancer *Balancer }

// Init sets the options. A registry in opts replaces the registry before.
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

// Select returns a function that chooses the node of each attempt of one call. It waits
// for the registry if the nodes of the service are not known. The error is the
// registry's, or selector.ErrNoneAvailable.
func (s *nodeSelector) Select(service string, opts ...selector.SelectOption) (selector.Next, error) {
	o := selector.SelectOptions{Strategy: s.Options().Strategy}
	for _, opt := range opts {
		opt(&o)
	}
	if o.Strategy == nil {
		o.Strategy = selector.Random
	}
	g, err := s.balancer.find(context.Background(), service)
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
	var tried []string // addresses; a call's attempts do not overlap
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

// Mark does nothing: WrapCall sees how attempts end.
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

// find returns the group of a service whose nodes are known. It waits for a lookup if
// there has been none. The error is the lookup's, or that of ctx.
func (b *Balancer) find(ctx context.Context, service string) (*group, error) {
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
	done chan struct{} // closed at its end
	err  error         // valid after done
}

// lookUp starts a lookup in the background, unless one is in progress or has just failed,
// and returns it. changed says that the registry has reported a change: a lookup in
// progress is then repeated.
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

// ask asks the registry, or go-micro's cache of it, for the nodes of a service.
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

// reportingRegistry is a registry whose watchers report changes to the balancer too.
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
	report  func()
	changed bool // the last call of Next has returned a change
}

// Next reports the change that it returned before: the cache has applied it by now. The
// service in the result is a copy, because the cache changes it, and the registry may have
// handed out its own.
func (w *reportingWatcher) Next() (*registry.Result, error) {
	if w.changed {
		w.report()
	}
	result, err := w.Watcher.Next()
	w.changed = err == nil
	if err == nil && result.Service != nil {
		result = &registry.Result{Action: result.Action, Service: registry.Copy([]*registry.Service{result.Service})[0]}
	}
	return result, err
}
