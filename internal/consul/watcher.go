package consul

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// Watch returns a watcher of the service that opts name. Of several addresses it uses the
// first whose agent answers, as lookups do.
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

	address      string              // of the agent that was asked last
	index        uint64              // of the state that was last seen in Consul; 0 before the first, or if unknown
	looked       bool                // the agent at address has answered before
	failed       bool                // the last query failed
	unheld       int                 // consecutive blocking queries that Consul answered at once, without a change
	due          time.Time           // when the next query may be sent
	recoverUntil time.Time           // until then an empty list is not believed; zero otherwise
	pending      []*registry.Result  // to be returned by Next
	seen         []*registry.Service // nodes that a caller of GetService may know; guarded by the registry's mutex
}

const (
	// queryInterval and queryBurst bound how often a watcher asks Consul, however fast
	// Consul answers: queryBurst times in a row, and once per queryInterval after that.
	queryInterval = time.Second
	queryBurst    = 10
	// pollInterval is the pause between two queries if Consul does not hold them until
	// something changes.
	pollInterval = 5 * time.Second
	// heldFor is how long Consul holds a query at least unless there is a change.
	heldFor = time.Second / 2

	// waitTime is how long Consul may hold a query, so that an agent that hangs is noticed.
	waitTime = 30 * time.Second
	// otherWaitTime is waitTime at any agent but the first, which may have returned.
	otherWaitTime = 10 * time.Second

	// After a failure a watcher pauses for up to minRetry, and for twice as long after each
	// further one, up to maxRetry.
	minRetry = 200 * time.Millisecond
	maxRetry = 5 * time.Second
)

// Next waits for a change. Once stopped it returns registry.ErrWatcherStopped. If Consul
// cannot be asked, Next asks again until it can. It returns an error only for the
// second failure in a row.
//
// go-micro's cache makes a new watcher then, and logs every fifth error.
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

// noteOutcome takes the result of a query. It logs that the service cannot be followed, and
// that it can be followed again, once for each outage; what a caller without any node has to
// know, GetService says. It reports whether Next is to return err.
func (w *watcher) noteOutcome(err error) (tell bool) {
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
		w.due = time.Now().Add(pause/2 + rand.N(pause/2)) // not all clients at once
	}
	tell = s.failures == 2
	failing := s.outageLogged
	r.mu.Unlock()
	switch {
	case failing && !before:
		log.Logf("Cannot follow %s: %v. Its last known nodes stay in use", w.service, Explain(r, err))
	case before && !failing:
		log.Logf("Following %s again, in consul at %s", w.service, hostPort(w.address))
	}
	return tell
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
// It returns without a change after the time that Consul lets a query wait.
func (w *watcher) wait() error {
	entries, index, err := w.query()
	if err != nil {
		return err
	}
	r := w.registry
	known, _ := r.known(w.service)
	// A watcher's first look may be at a Consul that has just come back, and an index that
	// goes back means that Consul has lost its catalog. Without an index, an empty list may
	// mean either.
	if len(entries) > 0 {
		w.recoverUntil = time.Time{}
	} else if !w.looked || index != 0 && index < w.index ||
		index == 0 && hasNodes(known) && w.recoverUntil.IsZero() {
		w.recoverUntil = time.Now().Add(recoverTime)
	}
	w.looked = true
	recovered := !w.recoverUntil.IsZero() && time.Now().After(w.recoverUntil)
	if recovered {
		w.recoverUntil = time.Time{}
	}
	if index != 0 && index == w.index && !recovered {
		return nil
	}
	w.index = index
	if _, err := r.lookUp(w.service, !w.recoverUntil.IsZero()); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known = r.service(w.service).known
	w.pending = changes(w.seen, known)
	w.seen = known
	return nil
}

// query asks the first agent that answers for the service, and waits there until its index
// is another than w.index. It does not wait after a failure: there may be a proxy that ends
// what takes long. It returns index 0 if the agent reports none.
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
			// A copy, because go-micro's cache changes what a watcher returns.
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
