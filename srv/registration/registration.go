// Package registration registers a server's node under an address that other hosts can dial.
// It retries while the registry is down.
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

// newReasonAfter is how long a new failure reason must last before it is logged. While a registry
// starts, it also returns errors, but for less than this time.
const newReasonAfter = 10 * time.Second

// retryInterval is the pause after a failed attempt to register. One request per second is a
// negligible load for an agent on the same host or in the same network. go-micro alone retries only
// after its register interval, which is 10 s in srv by default.
const retryInterval = time.Second

// Options are the settings of NewRegistry.
type Options struct {
	// RegistryAddresses has the host:port of each agent of the registry. The node advertises the
	// source address of packets to the first agent whose name resolves. While no name resolves, the
	// registration fails and is retried. If RegistryAddresses is empty, or if other hosts cannot
	// dial that source address, the node advertises the source address of the default route.
	RegistryAddresses []string
	// Server has the options of the server. If its Advertise names a host, the node advertises this
	// host, and no source address. If Advertise is empty and Address names a host, the node
	// advertises the host in Address.
	Server server.Options
	// Explain turns an error of the registry into the error that is logged. If Explain is nil,
	// errors are logged unchanged.
	Explain func(error) error
	// Holder returns the host:port of the live node that is registered with the given ID, or "" if
	// there is none. A node is live while its check passes. If Holder is nil, Register replaces the
	// registration of another server with the same ID.
	Holder func(id string) (address string, err error)
	// Leftover returns text for the log about a node that could not be deregistered: how long
	// the node stays registered, and how to remove the node. If Leftover is nil, the log has
	// only the error.
	Leftover func(id string) string
	// Observe is called after each attempt to register the node or to renew its registration. The
	// argument is nil if the attempt succeeded. Otherwise, the argument is the error, in the form
	// that is logged. The next attempt and Deregister wait until Observe returns, so Observe must
	// not block, and must not call the registry. Observe may be nil.
	Observe func(error)
	// Deregistered is called at the end of Deregister, even if the node could not be
	// deregistered. The server accepts connections until Deregistered returns, and then closes
	// its listener. Deregistered may block. Deregistered may be nil.
	Deregistered func()
}

// NewRegistry wraps r for the micro.Service of one server.
//
// The returned registry retries a failed registration every second, until the registration
// succeeds, the server registers again, or the server deregisters. The registry logs the first
// failure. If the reason of the failures changes, the registry logs the new reason when it has
// lasted for 10 s. It also logs the first success after a failure. If a node cannot be
// deregistered, the registry logs the reason and the text of Leftover. The methods Register and
// Deregister always return nil. If they returned an error, go-micro would log every failed
// registration, and it would log a failed deregistration too late.
//
// If Holder is set, the registration fails while another live server is registered with the node's
// ID. The registry retries this registration like any other.
//
// The registry determines the advertised address at each registration, so a change of the
// network needs no restart.
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
	pending    *registry.Service // the registration to retry; nil after a success
	registered bool              // if true, a failure is a failed renewal
	logged     string            // the last logged reason; valid while pending is not nil
	reason     string            // the reason of the last failure
	since      time.Time         // when the failures for this reason began
}

func (r *retryingRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	own := registry.Copy([]*registry.Service{s})[0]
	for _, node := range own.Nodes {
		// go-micro shares one map among all registrations, and writes to the map before each
		// registration.
		node.Metadata = maps.Clone(node.Metadata)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.register(own, opts)
	return nil
}

// register makes one attempt, and schedules a retry if the attempt fails. r.mu must be held.
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
		if r.pending == s { // s was not deregistered, and no newer registration replaced it
			r.register(s, opts)
		}
	})
}

// logFailure logs the reason of a failed attempt: at the first failure, and when a new reason has
// lasted for newReasonAfter. r.mu must be held.
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

// Deregister deregisters the service and stops the retries. It logs a failure itself: go-micro
// would log the failure only after Options.Deregistered returns, and Options.Deregistered may wait
// for in-flight calls.
func (r *retryingRegistry) Deregister(s *registry.Service) error {
	if err := r.deregister(s); err != nil {
		log.Logf("Not deregistered: %v", err)
	}
	r.deregistered()
	return nil
}

// deregister deregisters the service and stops the retries. Its error includes the text of
// Options.Leftover.
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
