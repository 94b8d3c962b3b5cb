package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
)

// Watch returns a watcher of the service that opts name. Of several addresses each
// watcher takes the next: go-micro's cache makes a new one when the last has failed.
//
// A watcher reports every node that GetService has returned in the last two minutes and
// that is gone, whoever called GetService.
func (r *consulRegistry) Watch(opts ...registry.WatchOption) (registry.Watcher, error) {
	var wo registry.WatchOptions
	for _, o := range opts {
		o(&wo)
	}
	if wo.Service == "" {
		return nil, errors.New("watching Consul: no service given; use registry.WatchService")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	addresses := r.addresses()
	config := r.configFor(addresses[r.watches%len(addresses)])
	r.watches++
	client, err := api.NewClient(&config)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", wo.Service, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := r.service(wo.Service)
	w := &watcher{registry: r, service: wo.Service, health: client.Health(), ctx: ctx, cancel: cancel, seen: s.all()}
	s.watchers[w] = false
	return w, nil
}

// watcher reports changes to one service. Next has one caller at a time.
type watcher struct {
	registry *consulRegistry
	service  string
	health   *api.Health
	ctx      context.Context
	cancel   context.CancelFunc

	index        uint64              // of the state that was last seen in Consul
	recoverUntil time.Time           // until then an empty list is not believed; zero otherwise
	pending      []*registry.Result  // to be returned by Next
	seen         []*registry.Service // nodes that a caller of GetService may know; guarded by the registry's mutex
}

// Next waits for a change. Once stopped it returns registry.ErrWatcherStopped;
// another error says why Consul could not be asked.
func (w *watcher) Next() (*registry.Result, error) {
	for len(w.pending) == 0 {
		err := w.wait()
		w.follow(err == nil)
		if err != nil {
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
func (w *watcher) Stop() {
	w.cancel()
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.service(w.service).watchers, w)
}

// follow says whether the watcher follows Consul.
func (w *watcher) follow(follows bool) {
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.service(w.service); w.ctx.Err() == nil {
		s.watchers[w] = follows
	}
}

// recoverTime is how long a watcher that finds Consul without any node of its service, when
// it cannot tell that from a lost catalog, waits for nodes to register again. go-micro's
// servers do every few seconds: register_interval, 10 s by default here.
const recoverTime = time.Minute

// wait blocks until the service's index in Consul changes, and sets pending to the changes.
// It returns without a change after the few minutes that Consul lets a query wait.
func (w *watcher) wait() error {
	query := &api.QueryOptions{AllowStale: true, WaitIndex: w.index}
	if !w.recoverUntil.IsZero() {
		query.WaitTime = max(time.Until(w.recoverUntil), time.Second)
	}
	entries, meta, err := w.health.Service(w.service, "", false, query.WithContext(w.ctx))
	if err != nil {
		return denied(err)
	}
	// A watcher's first look may be at a Consul that has just come back, and an index that
	// goes back means that Consul has lost its catalog.
	if len(entries) > 0 {
		w.recoverUntil = time.Time{}
	} else if w.index == 0 || meta.LastIndex < w.index {
		w.recoverUntil = time.Now().Add(recoverTime)
	}
	recovered := !w.recoverUntil.IsZero() && time.Now().After(w.recoverUntil)
	if recovered {
		w.recoverUntil = time.Time{}
	}
	if meta.LastIndex == w.index && !recovered {
		return nil
	}
	w.index = meta.LastIndex
	r := w.registry
	if _, err := r.lookUp(w.service, !w.recoverUntil.IsZero()); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.service(w.service).known
	w.pending = changes(w.seen, known)
	w.seen = known
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
