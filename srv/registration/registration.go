// Package registration keeps a server registered while its registry comes and
// goes. go-micro tries only at each interval, 10 s by default, and logs each
// failure.
package registration

import (
	"maps"
	"sync"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/util/log"
)

// retryInterval is how long after a failure the next attempt is made. To an agent
// on this machine, or next to it, one a second is nothing.
const retryInterval = time.Second

// Keep returns r, made to go on trying when a server cannot be registered: every
// second, until it is registered, deregistered or registered anew. It logs the first
// failure, in the words of explain, and the success after it. Register always
// returns nil, since go-micro would log each failure.
//
// It is for one server, as a micro.Service has it.
func Keep(r registry.Registry, explain func(error) error) registry.Registry {
	return &kept{Registry: r, explain: explain}
}

type kept struct {
	registry.Registry
	explain func(error) error

	mu      sync.Mutex
	pending *registry.Service // what is to be tried again; nil after a success
}

func (k *kept) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	own := registry.Copy([]*registry.Service{s})[0]
	for _, node := range own.Nodes {
		// go-micro uses one map for all registrations, and writes to it before each.
		node.Metadata = maps.Clone(node.Metadata)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.register(own, opts)
	return nil
}

// register makes an attempt, and arranges for the next if it fails. k.mu must be
// held.
func (k *kept) register(s *registry.Service, opts []registry.RegisterOption) {
	failing := k.pending != nil
	k.pending = nil
	err := k.Registry.Register(s, opts...)
	if err == nil {
		if failing {
			log.Logf("Registered %s", s.Name)
		}
		return
	}
	if !failing {
		log.Logf("Not registered: %v. Trying again every %v", k.explain(err), retryInterval)
	}
	k.pending = s
	time.AfterFunc(retryInterval, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pending == s { // neither deregistered nor registered anew
			k.register(s, opts)
		}
	})
}

// Deregister ends the attempts too.
func (k *kept) Deregister(s *registry.Service) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = nil
	return k.Registry.Deregister(s)
}
