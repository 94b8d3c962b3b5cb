package consul

import (
	"slices"
	"time"

	"github.com/micro/go-micro/registry"
)

const (
	// historyAge is how long the registry remembers nodes that it no longer lists. A new watcher
	// reports these nodes as gone to go-micro's cache, which may still have an old list with the
	// nodes. The cache keeps a list for up to two minutes (twice its TTL), so historyAge is longer
	// than two minutes.
	historyAge = 3 * time.Minute
	// historySize limits the number of past lists of a service.
	historySize = 64
)

// service is the registry's state of one service. The registry's mu guards it.
type service struct {
	known    []*registry.Service // the result of the last lookup; never modified
	ticket   uint64              // the number of the lookup that returned known
	index    uint64              // Consul's index of known; 0 if unknown
	history  []pastList          // earlier values of known, oldest first
	watchers map[*watcher]bool   // each running watcher, and whether it follows Consul

	failures     int  // consecutive failed queries of all watchers
	outageLogged bool // the log says that the watchers fail
}

// pastList is an earlier result of a lookup.
type pastList struct {
	services []*registry.Service
	until    time.Time // when a newer result replaced this result
}

// service returns the service with this name. It creates the service if necessary. r.mu must be
// held.
func (r *consulRegistry) service(name string) *service {
	s := r.services[name]
	if s == nil {
		s = &service{watchers: map[*watcher]bool{}}
		r.services[name] = s
	}
	return s
}

// known returns the result of the last lookup of a service. watched reports whether the service has
// a watcher, and current reports whether a watcher keeps the result up to date. Callers must not
// modify the result.
func (r *consulRegistry) known(name string) (services []*registry.Service, watched, current bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(name)
	for _, follows := range s.watchers {
		current = current || follows
	}
	return s.known, len(s.watchers) > 0, current
}

// remember stores the result of a lookup. It drops the result if a lookup that began later has
// already stored its result. ticket is the number of the lookup, and index is Consul's index of the
// result.
func (r *consulRegistry) remember(name string, ticket, index uint64, services []*registry.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(name)
	if ticket < s.ticket {
		return
	}
	now := time.Now()
	s.history = append(s.history, pastList{s.known, now})
	s.history = slices.DeleteFunc(s.history, func(p pastList) bool { return now.Sub(p.until) > historyAge })
	s.history = s.history[max(0, len(s.history)-historySize):]
	s.known, s.ticket, s.index = services, ticket, index
	for w := range s.watchers {
		w.seen = merge(w.seen, services)
	}
}

// all returns the nodes of the last result and of all results in the history. r.mu must be held.
func (s *service) all() []*registry.Service {
	all := s.known
	for _, p := range s.history {
		all = merge(all, p.services)
	}
	return all
}

// merge returns the nodes of a and b, with one service for each version. It does not modify a or b.
func merge(a, b []*registry.Service) []*registry.Service {
	all := slices.Clone(a)
	for _, service := range b {
		i := slices.IndexFunc(all, func(s *registry.Service) bool { return s.Version == service.Version })
		if i < 0 {
			all = append(all, service)
			continue
		}
		merged := *all[i]
		merged.Nodes = slices.Clone(merged.Nodes)
		for _, n := range service.Nodes {
			if !slices.ContainsFunc(merged.Nodes, func(m *registry.Node) bool { return m.Id == n.Id }) {
				merged.Nodes = append(merged.Nodes, n)
			}
		}
		all[i] = &merged
	}
	return all
}
