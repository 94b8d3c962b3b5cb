// Package balancer chooses the node for each attempt of a call, and makes the attempt
// over one gRPC connection per node that all callers share. It serves a client of any
// number of services, on any of go-micro's registries.
//
// go-plugins' round robin does the choosing, among the nodes that the balancer offers:
// connected ones that do not fail at everything. go-micro alone calls a dead node until
// its TTL has passed. go-micro's pool gives each call in flight a connection of its own,
// and closes the connection after any error.
//
// A client needs all three parts of a Balancer: Selector as its selector, Wrap around its
// round robin, and WrapCall among its call wrappers.
package balancer

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"sync"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry/cache"
	"google.golang.org/grpc"
)

// Balancer holds what one client knows of its services and their nodes, and the
// connections. It is safe for concurrent use.
type Balancer struct {
	tls         *tls.Config // nil for plaintext
	dialOptions []grpc.DialOption
	start       uint32 // where the round robin starts

	mu      sync.RWMutex // never held during I/O
	options selector.Options
	cache   cache.Cache       // nil until Init
	groups  map[string]*group // by service
	closed  bool
}

// New returns a balancer without connections. It connects to a node before the first
// call to the node, with TLS unless config is nil. If config has no ServerName, the
// certificate of a node has to have the name of its service. opts are for each connection, in
// addition to the balancer's own.
func New(config *tls.Config, opts ...grpc.DialOption) *Balancer {
	return &Balancer{tls: config, dialOptions: opts, start: rand.Uint32(), groups: map[string]*group{}}
}

// Close stops following the registry, and closes all connections; calls in flight finish
// first. Later calls fail.
func (b *Balancer) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cache != nil {
		b.cache.Stop()
	}
	for _, g := range b.groups {
		g.close()
	}
	clear(b.groups)
	b.closed = true
}

// Wrap returns a client wrapper: roundRobin, which is go-plugins' wrapper, choosing
// from the nodes that Selector offers. It has to be the innermost client wrapper.
//
// The first call to a service waits for the registry, at most until its context ends.
// Other first calls wait for the same lookup. Later calls do not wait.
func (b *Balancer) Wrap(roundRobin client.Wrapper) client.Wrapper {
	return func(c client.Client) client.Client { return roundRobin(&finder{c, b}) }
}

// finder is a client that looks up the nodes of a call's service before the call.
type finder struct {
	client.Client
	balancer *Balancer
}

func (f *finder) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	var callOpts client.CallOptions
	for _, o := range opts {
		o(&callOpts)
	}
	if len(callOpts.Address) == 0 { // else go-micro does not ask the selector
		if _, err := f.balancer.find(ctx, req.Service()); err != nil && ctx.Err() != nil {
			return contextError(ctx.Err())
		}
	}
	return f.Client.Call(ctx, req, rsp, opts...)
}

// group returns the group of a service.
func (b *Balancer) group(service string) *group {
	b.mu.RLock()
	g := b.groups[service]
	b.mu.RUnlock()
	if g != nil {
		return g
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g = b.groups[service]; g == nil {
		g = &group{service: service, balancer: b, conns: map[string]*conn{}, closed: b.closed}
		b.groups[service] = g
	}
	return g
}
