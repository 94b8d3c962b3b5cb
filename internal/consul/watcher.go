package consul

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// Watch returns a watcher of one service, which the option registry.WatchService names. Watch
// returns an error without this option. If there are several agents, the watcher uses the first
// agent that responds, like a lookup.
//
// If a node has disappeared from the results of lookups during the last three minutes, a new
// watcher also reports the deletion of this node. The reason is that a cache may still have the
// node.
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
	ctx, cancel := context.WithCancel(context.Background())
	s := r.service(wo.Service)
	w := &watcher{registry: r, service: wo.Service, ctx: ctx, cancel: cancel, seen: s.all()}
	s.watchers[w] = false
	return w, nil
}

// watcher reports changes to one service. Next has one caller at a time.
type watcher struct {
	registry *consulRegistry
	service  string
	ctx      context.Context
	cancel   context.CancelFunc

	address      string              // the address of the last queried agent
	index        uint64              // Consul's index of the last list; 0 before the first list, or if unknown
	looked       bool                // the agent at address has responded at least once
	failed       bool                // the last query failed
	unheld       int                 // consecutive blocking queries that returned at once, without a change
	due          time.Time           // when the next query may be sent
	recoverUntil time.Time           // empty lists of nodes are ignored until this time; zero if they are not ignored
	pending      []*registry.Result  // results for the next calls of Next
	seen         []*registry.Service // nodes that a caller of GetService may know; guarded by registry.mu
}

const (
	// queryInterval and queryBurst limit the rate of a watcher's queries if Consul responds at
	// once. A watcher sends queryBurst queries without a pause, and then one query per
	// queryInterval.
	queryInterval = time.Second
	queryBurst    = 10
	// pollInterval is the pause between two queries if Consul does not hold queries until
	// something changes.
	pollInterval = 5 * time.Second
	// heldFor is the minimum time for which Consul holds a query if nothing changes. If a query
	// returns in less than heldFor, and nothing has changed, Consul has not held the query.
	heldFor = time.Second / 2

	// waitTime is the longest time for which Consul may hold a query. Without a limit, the
	// watcher could not detect that an agent hangs.
	waitTime = 30 * time.Second
	// otherWaitTime replaces waitTime at all agents but the first. It is shorter than waitTime, so
	// that the watcher soon tries the first agent again, which may be up.
	otherWaitTime = 10 * time.Second

	// After a failure, a watcher pauses for up to minRetry. Each further failure doubles the
	// pause, up to maxRetry.
	minRetry = 200 * time.Millisecond
	maxRetry = 5 * time.Second
)

// Next waits for the next change and returns it. After Stop, Next returns
// registry.ErrWatcherStopped. If a query fails, Next retries. The registry counts the consecutive
// failures of all watchers of a service. Only the second consecutive failure makes Next return the
// error.
//
// After an error, go-micro's cache creates a new watcher. The cache logs the fifth error of its
// watchers, and then every fourth error.
func (w *watcher) Next() (*registry.Result, error) {
	for len(w.pending) == 0 {
		err := w.pause()
		if err == nil {
			err = w.wait()
		}
		w.follow(err == nil)
		if w.ctx.Err() != nil && err != nil {
			return nil, registry.ErrWatcherStopped
		}
		if w.noteOutcome(err) {
			return nil, err
		}
	}
	result := w.pending[0]
	w.pending = w.pending[1:]
	return result, nil
}

// pause waits until the next query may be sent.
func (w *watcher) pause() error {
	now := time.Now()
	if earliest := now.Add(-queryBurst * queryInterval); w.due.Before(earliest) {
		w.due = earliest
	}
	wait := w.due.Sub(now)
	w.due = w.due.Add(queryInterval)
	if wait <= 0 {
		return w.ctx.Err()
	}
	select {
	case <-time.After(wait):
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// noteOutcome records the result of a query; err is nil after a success. After a failure, it
// schedules the next query. noteOutcome logs the start and the end of each outage once. It does not
// log an outage while no node is known, because GetService then returns the error. If nextFails is
// true, Next must return err.
func (w *watcher) noteOutcome(err error) (nextFails bool) {
	r := w.registry
	r.mu.Lock()
	s := r.service(w.service)
	before := s.outageLogged
	if err == nil {
		s.failures, s.outageLogged = 0, false
	} else {
		s.failures++
		s.outageLogged = s.failures > 1 && hasNodes(s.known)
		pause := min(maxRetry, minRetry<<min(s.failures-1, 10))
		w.due = time.Now().Add(pause/2 + rand.N(pause/2)) // clients must not all retry at the same moment
	}
	nextFails = s.failures == 2
	failing := s.outageLogged
	r.mu.Unlock()
	switch {
	case failing && !before:
		log.Logf("Cannot follow %s: %v. Its last known nodes stay in use", w.service, Explain(r, err))
	case before && !failing:
		log.Logf("Following %s again, in consul at %s", w.service, hostPort(w.address))
	}
	return nextFails
}

// Stop ends the watcher. A waiting Next returns.
func (w *watcher) Stop() {
	w.cancel()
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.service(w.service).watchers, w)
}

// follow records whether the watcher follows Consul. A watcher follows Consul if its last query has
// succeeded.
func (w *watcher) follow(follows bool) {
	r := w.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.service(w.service); w.ctx.Err() == nil {
		s.watchers[w] = follows
	}
}

// recoverTime is how long a watcher ignores an empty list of nodes if Consul may have lost its
// catalog. During this time, the nodes register again: go-micro's servers register every
// register_interval, by default every 10 s in srv.
const recoverTime = time.Minute

// wait blocks until the service's index in Consul changes, and then sets pending to the changes.
// If nothing changes, wait returns when the wait time of its query is over.
func (w *watcher) wait() error {
	entries, index, err := w.query()
	if err != nil {
		return err
	}
	r := w.registry
	r.mu.Lock()
	s := r.service(w.service)
	known, knownIndex := s.known, s.index
	r.mu.Unlock()
	switch {
	case len(entries) > 0:
		w.recoverUntil = time.Time{}
	case w.catalogMayBeLost(index, known):
		w.recoverUntil = time.Now().Add(recoverTime)
	}
	w.looked = true
	recovered := !w.recoverUntil.IsZero() && time.Now().After(w.recoverUntil)
	if recovered {
		w.recoverUntil = time.Time{}
	}
	if index != 0 && index == w.index && index == knownIndex && !recovered {
		return nil
	}
	lookedUp, err := r.lookUp(w.service, !w.recoverUntil.IsZero())
	if err != nil {
		return err
	}
	// Each response may come from another Consul server, and one server may lag behind another. So
	// the lookup may return an older list than the query. Then the index of the lookup makes the
	// next query return at once.
	w.index = cmp.Or(lookedUp, index)
	r.mu.Lock()
	defer r.mu.Unlock()
	known = s.known
	w.pending = changes(w.seen, known)
	w.seen = known
	return nil
}

// catalogMayBeLost reports whether an empty list of nodes may mean that Consul has lost its
// catalog. index is the index in Consul's response, and known are the nodes that are known so far.
func (w *watcher) catalogMayBeLost(index uint64, known []*registry.Service) bool {
	switch {
	case !w.looked: // the first response of this agent: Consul may have just restarted
		return true
	case index == 0: // without an index, a lost catalog looks like a service without nodes
		return hasNodes(known) && w.recoverUntil.IsZero()
	default: // Consul's index decreases only if the catalog was lost
		return index < w.index
	}
}

// query queries the first agent that responds. The query blocks until the service's index differs
// from w.index, or until the wait time is over. After a failure, the query does not block: a proxy
// may end requests that take long. query returns the nodes and the index of the service. The index
// is 0 if the agent reports no index.
func (w *watcher) query() (entries []*api.ServiceEntry, index uint64, err error) {
	r := w.registry
	var asked uint64
	var held time.Duration
	err = r.try(func(address string, _ bool) error {
		if address != w.address {
			w.address, w.index, w.looked, w.unheld = address, 0, false, 0
		}
		config := r.configFor(address, answerTimeout)
		client, err := api.NewClient(&config)
		if err != nil {
			return err
		}
		if asked = w.index; w.failed {
			asked = 0
		}
		options := &api.QueryOptions{AllowStale: true, WaitIndex: asked, WaitTime: waitTime}
		if address != r.first() {
			options.WaitTime = otherWaitTime
		}
		if !w.recoverUntil.IsZero() {
			options.WaitTime = min(options.WaitTime, max(time.Until(w.recoverUntil), time.Second))
		}
		start := time.Now()
		var meta *api.QueryMeta
		if entries, meta, err = client.Health().Service(w.service, "", false, options.WithContext(w.ctx)); err != nil {
			return err
		}
		index, held = meta.LastIndex, time.Since(start)
		return nil
	})
	if w.failed = err != nil; w.failed {
		return nil, 0, err
	}
	if w.unheld++; asked == 0 || index != asked || held >= heldFor {
		w.unheld = 0
	}
	if index == 0 || w.unheld > 1 {
		w.due = time.Now().Add(pollInterval)
		r.polling.Do(func() {
			log.Logf("consul at %s does not hold queries until something changes; is there a proxy before it that drops X-Consul-Index? Asking every %v instead", hostPort(w.address), pollInterval)
		})
	}
	return entries, index, nil
}

// changes compares two lists of nodes, before and after. It returns the results that update
// go-micro's cache from the first list to the second list. For each version of the service, these
// are a "delete" with the nodes that are gone, and an "update" with the present nodes.
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
			// Copy the service, because go-micro's cache modifies the results of a watcher.
			results = append(results, &registry.Result{Action: "update", Service: registry.Copy([]*registry.Service{service})[0]})
		}
	}
	return results
}

func has(services []*registry.Service, version, id string) bool {
	return slices.ContainsFunc(services, func(s *registry.Service) bool {
		return s.Version == version && slices.ContainsFunc(s.Nodes, func(n *registry.Node) bool { return n.Id == id })
	})
}
