// Package registration keeps a server registered while its registry comes and
// goes.
//
// go-micro registers at each interval, 10 s by default, and logs each failure.
// So a server that was there before its registry fills its log, and is found
// only up to 10 s after the registry can be used.
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
// second, until it is, is deregistered, or is registered anew. Register returns
// nil then, since go-micro would log what it returns each time. Instead, the
// first failure is logged, in the words of explain, and so is the success that
// ends the failures.
//
// It is for one server, as a micro.Service has it.
func Keep(r registry.Registry, explain func(error) error) registry.Registry {
	return &kept{Registry: r, explain: explain}
}

type kept struct {
	registry.Registry
	explain func(error) error

	mu    sync.Mutex
	retry *time.Timer // the next attempt; nil while the last one succeeded
}

func (k *kept) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.register(ownCopy(s), opts)
	return nil
}

// ownCopy returns a copy of s to register later. go-micro gives each one the same
// map as its node's metadata, and writes to it before it registers again.
func ownCopy(s *registry.Service) *registry.Service {
	own := registry.Copy([]*registry.Service{s})[0]
	for _, node := range own.Nodes {
		node.Metadata = maps.Clone(node.Metadata)
	}
	return own
}

// register makes an attempt, and arranges for the next if it fails. k.mu must be
// held.
func (k *kept) register(s *registry.Service, opts []registry.RegisterOption) {
	failing := k.stop()
	if err := k.Registry.Register(s, opts...); err != nil {
		if !failing {
			log.Logf("Not registered: %v. Trying again every %v", k.explain(err), retryInterval)
		}
		k.retryLater(s, opts)
		return
	}
	if failing {
		log.Logf("Registered %s", s.Name)
	}
}

// retryLater arranges for an attempt, unless another comes first. k.mu must be
// held.
func (k *kept) retryLater(s *registry.Service, opts []registry.RegisterOption) {
	var retry *time.Timer
	retry = time.AfterFunc(retryInterval, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.retry == retry {
			k.register(s, opts)
		}
	})
	k.retry = retry
}

// stop drops the attempt that is to come, and reports whether there was one.
// k.mu must be held.
func (k *kept) stop() bool {
	if k.retry == nil {
		return false
	}
	k.retry.Stop()
	k.retry = nil
	return true
}

// Deregister ends the attempts too.
func (k *kept) Deregister(s *registry.Service) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop()
	return k.Registry.Deregister(s)
}
