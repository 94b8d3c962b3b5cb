// Package registration registers a server's node under an address that other hosts can
// dial, and keeps the node registered while the registry comes and goes.
package registration

import (
	"maps"
	"sync"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/util/log"
)

// retryInterval is the pause after a failed attempt to register. One request a second is
// no load for an agent on the same host or next to it. go-micro alone would try at each
// register interval, 10 s by default.
const retryInterval = time.Second

// Options are the settings of NewRegistry.
type Options struct {
	// RegistryAddress is the host:port of the registry. The node advertises the local
	// address that packets to it leave from. It may be empty.
	RegistryAddress string
	// Server has the options of the server. An Advertise or Address in it that names a
	// host is advertised instead.
	Server server.Options
	// Explain returns an error of the registry in words for the log; nil leaves it alone.
	Explain func(error) error
}

// NewRegistry returns r for the use of one server, as a micro.Service has it.
//
// It retries a registration that failed every second, until it succeeds, or the server
// deregisters or registers again. It logs the first failure, and the success after it.
// Register always returns nil, because go-micro would log each failure.
//
// It looks the advertised address up at each registration, so that a change of the network
// needs no restart.
func NewRegistry(r registry.Registry, opts Options) registry.Registry {
	if opts.Explain == nil {
		opts.Explain = func(err error) error { return err }
	}
	return &retryingRegistry{Registry: newAdvertisingRegistry(r, opts), explain: opts.Explain}
}

// retryingRegistry retries failed registrations.
type retryingRegistry struct {
	registry.Registry
	explain func(error) error

	mu         sync.Mutex
	pending    *registry.Service // to be registered again; nil after a success
	registered bool              // so that a failure is one of a renewal
}

func (r *retryingRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	own := registry.Copy([]*registry.Service{s})[0]
	for _, node := range own.Nodes {
		// go-micro uses one map for all registrations, and writes to it before each.
		node.Metadata = maps.Clone(node.Metadata)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.register(own, opts)
	return nil
}

// register makes an attempt, and schedules the next one if the attempt fails. r.mu must
// be held.
func (r *retryingRegistry) register(s *registry.Service, opts []registry.RegisterOption) {
	failing := r.pending != nil
	r.pending = nil
	err := r.Registry.Register(s, opts...)
	if err == nil {
		if failing {
			log.Logf("Registered %s", s.Name)
		}
		r.registered = true
		return
	}
	if !failing && r.registered {
		log.Logf("Registration not renewed: %v. Trying again every %v", r.explain(err), retryInterval)
	} else if !failing {
		log.Logf("Not registered: %v. Trying again every %v", r.explain(err), retryInterval)
	}
	r.pending = s
	time.AfterFunc(retryInterval, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pending == s { // neither deregistered nor registered again
			r.register(s, opts)
		}
	})
}

// Deregister also ends the retries.
func (r *retryingRegistry) Deregister(s *registry.Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending, r.registered = nil, false
	return r.Registry.Deregister(s)
}
