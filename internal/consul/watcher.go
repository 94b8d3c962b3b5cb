package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
)

// Watch returns a watcher of the service that opts name. Of several addresses each
// watcher takes the next: go-micro's cache makes a new one when the last has failed.
func (s *consulRegistry) Watch(opts ...registry.WatchOption) (registry.Watcher, error) {
	var wo registry.WatchOptions
	for _, o := range opts {
		o(&wo)
	}
	if wo.Service == "" {
		return nil, errors.New("watching Consul: no service given; use registry.WatchService")
	}
	s.mu.Lock()
	turn := s.watches
	s.watches++
	s.mu.Unlock()
	client, err := s.client(turn)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", wo.Service, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &watcher{registry: s, service: wo.Service, health: client.Health(), ctx: ctx, cancel: cancel}, nil
}

// watcher tells of changes to one service. It has one caller.
type watcher struct {
	registry *consulRegistry
	service  string
	health   *api.Health
	ctx      context.Context
	cancel   context.CancelFunc

	index   uint64             // of the state that was last seen in Consul
	pending []*registry.Result // what is left to tell of it
}

// Next waits for a change. Once stopped it returns registry.ErrWatcherStopped;
// another error says why Consul could not be asked.
func (w *watcher) Next() (*registry.Result, error) {
	for len(w.pending) == 0 {
		if err := w.wait(); err != nil {
			if w.ctx.Err() != nil {
				err = registry.ErrWatcherStopped
			}
			return nil, err
		}
	}
	result := w.pending[0]
	w.pending = w.pending[1:]
	return result, nil
}

// Stop ends the wait in Next.
func (w *watcher) Stop() { w.cancel() }

// wait blocks until the service's index in Consul moves on, or for the few
// minutes that Consul lets a query wait, and takes up what has changed.
func (w *watcher) wait() error {
	query := &api.QueryOptions{AllowStale: true, WaitIndex: w.index}
	_, meta, err := w.health.Service(w.service, "", false, query.WithContext(w.ctx))
	if err != nil {
		return err
	}
	if meta.LastIndex == w.index {
		return nil
	}
	w.index = meta.LastIndex
	if w.index < query.WaitIndex {
		w.index = 0 // Consul was restarted with an empty catalog
	}

	r := w.registry
	r.asking.Lock()
	defer r.asking.Unlock()
	after, err := r.lookUp(w.service)
	if err != nil {
		return err
	}
	if query.WaitIndex == 0 && !hasNodes(after) {
		// A watcher's first look is at a Consul that has just come back. To one that
		// lost its catalog, the nodes will register again.
		return nil
	}
	w.pending = changes(r.last(w.service), after)
	r.remember(w.service, after)
	return nil
}

// changes returns what turns before into after for go-micro's cache: for each
// version, which nodes are gone and which are there.
func changes(before, after []*registry.Service) []*registry.Result {
	var results []*registry.Result
	for _, service := range before {
		gone := *service
		gone.Nodes = slices.DeleteFunc(slices.Clone(service.Nodes), func(n *registry.Node) bool {
			return has(after, service.Version, n.Id)
		})
		if len(gone.Nodes) > 0 {
			results = append(results, &registry.Result{Action: "delete", Service: &gone})
		}
	}
	for _, service := range after {
		if len(service.Nodes) > 0 {
			results = append(results, &registry.Result{Action: "update", Service: service})
		}
	}
	return results
}

func has(services []*registry.Service, version, id string) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool {
		return s.Version == version && slices.ContainsFunc(s.Nodes, func(n *registry.Node) bool { return n.Id == id })
	})
}
