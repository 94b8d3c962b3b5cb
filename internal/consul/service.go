package consul

import (
	"slices"
	"time"

	"github.com/micro/go-micro/registry"
)

const (
	// historyAge is how long the registry remembers nodes that it does not list any more, so
	// that a new watcher can report them as gone. go-micro's cache keeps its copy of a list
	// for one minute.
	historyAge = 2 * time.Minute
	// historySize bounds the lists that are remembered.
	historySize = 64
)

// service is what the registry knows of one service. The registry's mutex guards it.
type service struct {
	known    []*registry.Service // what Consul said last; never changed
	ticket   uint64              // of the lookup that found it
	history  []pastList          // what Consul said before, oldest first
	watchers map[*watcher]bool   // whether each follows Consul

	failures     int  // consecutive ones of watchers
	outageLogged bool // that watchers fail
}

type pastList struct {
	services []*registry.Service
	until    time.Time
}

// service returns the service with that name. r.mu must be held.
func (r *consulRegistry) service(name string) *service {
	s := r.services[name]
	if s == nil {
		s = &service{watchers: map[*watcher]bool{}}
		r.services[name] = s
	}
	return s
}

// known returns what Consul said last of a service, and whether a watcher keeps that
// current. The result is not to be changed.
func (r *consulRegistry) known(name string) (services []*registry.Service, current bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(name)
	for _, follows := range s.watchers {
		current = current || follows
	}
	return s.known, current
}

// remember keeps what Consul said in a lookup, unless a later lookup has ended before.
func (r *consulRegistry) remember(name string, ticket uint64, services []*registry.Service) {
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
	s.known, s.ticket = services, ticket
	for w := range s.watchers {
		w.seen = merge(w.seen, services)
	}
}

// all returns all nodes that were listed lately. r.mu must be held.
func (s *service) all() []*registry.Service {
	all := s.known
	for _, p := range s.history {
		all = merge(all, p.services)
	}
	return all
}

// merge returns the nodes of a and of b, as services of their versions. It changes neither.
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
