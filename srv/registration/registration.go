// Package registration registers a server's node under an address that other hosts can
// dial, and keeps the node registered while the registry comes and goes.
package registration

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/util/log"
)

// newReasonAfter is how long a failure must have another reason than the log says before
// the log gets that reason too. What a registry answers while it starts is over by then.
const newReasonAfter = 10 * time.Second

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
	// Holder returns the host:port of the live node that is registered with an ID, and ""
	// without one. A node is live while its check passes. With a nil Holder, Register
	// replaces any other server's registration.
	Holder func(id string) (address string, err error)
	// Leftover says how long a node stays registered that could not be deregistered, and
	// how to remove it; nil says nothing.
	Leftover func(id string) string
	// Observe is called after each attempt to register the node or to renew its registration,
	// with nil or with the error that Explain returned. The next attempt and Deregister wait
	// until Observe returns, so Observe must neither block nor call the registry. It may be
	// nil.
	Observe func(error)
	// Deregistered is called in Deregister, when the node is deregistered or could not be.
	// The server accepts connections until it returns, and closes its listener then. It may
	// block, and may be nil.
	Deregistered func()
}

// NewRegistry returns r for the use of one server, as a micro.Service has it.
//
// It retries a registration that failed every second, until it succeeds, or the server
// deregisters or registers again. It logs the first failure, another reason that lasts, and
// the success after it. It logs why a node could not be deregistered, what stays registered,
// and for how long. Register and Deregister always return nil, because go-micro would log
// each failure to register, and one to deregister too late.
//
// It does not register a node while another live server is registered with the node's ID;
// that is a failure like others.
//
// It looks the advertised address up at each registration, so that a change of the network
// needs no restart.
func NewRegistry(r registry.Registry, opts Options) registry.Registry {
	if opts.Explain == nil {
		opts.Explain = func(err error) error { return err }
	}
	if opts.Observe == nil {
		opts.Observe = func(error) {}
	}
	if opts.Deregistered == nil {
		opts.Deregistered = func() {}
	}
	if opts.Holder != nil {
		r = &exclusiveRegistry{Registry: r, holder: opts.Holder}
	}
	return &retryingRegistry{
		Registry:     newAdvertisingRegistry(r, opts),
		explain:      opts.Explain,
		leftover:     opts.Leftover,
		observe:      opts.Observe,
		deregistered: opts.Deregistered,
	}
}

// retryingRegistry retries failed registrations.
type retryingRegistry struct {
	registry.Registry
	explain      func(error) error
	leftover     func(id string) string
	observe      func(error)
	deregistered func()

	mu         sync.Mutex
	pending    *registry.Service // to be registered again; nil after a success
	registered bool              // so that a failure is one of a renewal
	logged     string            // why, as the log says; valid while pending is not nil
	reason     string            // why, as of the last attempt
	since      time.Time         // when that was first the reason
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
		r.observe(nil)
		return
	}
	if taken := (*idTakenError)(nil); !errors.As(err, &taken) {
		err = r.explain(err)
	}
	r.observe(err)
	r.logFailure(err, !failing)
	r.pending = s
	time.AfterFunc(retryInterval, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pending == s { // neither deregistered nor registered again
			r.register(s, opts)
		}
	})
}

// logFailure logs why an attempt failed: the first time, and when the reason has been
// another one for newReasonAfter. r.mu must be held.
func (r *retryingRegistry) logFailure(err error, first bool) {
	if reason := err.Error(); first || reason != r.reason {
		r.reason, r.since = reason, time.Now()
	}
	if !first && (r.reason == r.logged || time.Since(r.since) < newReasonAfter) {
		return
	}
	r.logged = r.reason
	what := "Not registered"
	if r.registered {
		what = "Registration not renewed"
	}
	log.Logf("%s: %s. Trying again every %v", what, r.reason, retryInterval)
}

// Deregister also ends the retries. It logs a failure itself: go-micro would log it only
// after Options.Deregistered, which may take as long as the calls in flight.
func (r *retryingRegistry) Deregister(s *registry.Service) error {
	if err := r.deregister(s); err != nil {
		log.Logf("Not deregistered: %v", err)
	}
	r.deregistered()
	return nil
}

// deregister returns an error that says what stays registered.
func (r *retryingRegistry) deregister(s *registry.Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending, r.registered = nil, false
	err := r.Registry.Deregister(s)
	if err == nil {
		return nil
	}
	err = r.explain(err)
	if r.leftover != nil {
		for _, node := range s.Nodes {
			err = fmt.Errorf("%w. %s", err, r.leftover(node.Id))
		}
	}
	return err
}
