// Package balancer chooses a node for each attempt of a call, and makes the attempt. There is one
// gRPC connection per node, which all callers share. A client can call any number of services, and
// can use any of go-micro's registries.
//
// go-plugins' round robin chooses one of the nodes that the balancer offers. The balancer offers
// the nodes that are connected and not ejected, if there are any. Without the balancer, go-micro
// calls a dead node until the TTL of the node's registration has passed. Also, go-micro's pool uses
// a separate connection for each in-flight call, and closes the connection after any error.
//
// A client needs all three parts of a Balancer: Selector as its selector, Wrap around its round
// robin, and WrapCall among its call wrappers.
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

// Balancer holds the known nodes of the services that one client calls, and the connections to
// these nodes. It is safe for concurrent use.
type Balancer struct {
	tls         *tls.Config // nil for plaintext
	dialOptions []grpc.DialOption
	start       uint32 // random; selects the first node in the lists of nodes

	mu      sync.RWMutex // never held during I/O
	options selector.Options
	cache   cache.Cache       // nil until Init
	groups  map[string]*group // by service
	closed  bool
}

// New returns a balancer without connections. The balancer connects to a node before it makes the
// first call to the node. It uses TLS unless config is nil. If config has no ServerName, a node's
// certificate must be valid for the name of the node's service. The balancer adds opts to its own
// options for each connection.
func New(config *tls.Config, opts ...grpc.DialOption) *Balancer {
	return &Balancer{tls: config, dialOptions: opts, start: rand.Uint32(), groups: map[string]*group{}}
}

// Close stops watching the registry, and closes all connections. A connection with in-flight calls
// stays open until these calls have ended; Close does not wait for them. Later calls fail.
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

// Wrap returns a client wrapper with two parts. A call first passes roundRobin, which is the result
// of go-plugins' roundrobin.NewClientWrapper. roundRobin only adds its strategy to the call's
// options: the selector uses the strategy later, for each attempt. Then the second part finds the
// nodes of the call's service. Use the returned wrapper as the innermost client wrapper.
//
// The first call to a service waits until the registry responds or the call's context ends.
// Concurrent first calls wait for the same lookup. While nodes are known, calls do not wait.
func (b *Balancer) Wrap(roundRobin client.Wrapper) client.Wrapper {
	return func(c client.Client) client.Client { return roundRobin(&finder{c, b}) }
}

// finder is a client that finds the nodes of a call's service before it makes the call.
type finder struct {
	client.Client
	balancer *Balancer
}

func (f *finder) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	var callOpts client.CallOptions
	for _, o := range opts {
		o(&callOpts)
	}
	if len(callOpts.Address) == 0 { // if the call has an address, go-micro does not use the selector
		// Ignore the lookup's error: go-micro's client then calls Select, which returns this error.
		_, _ = f.balancer.groupWithNodes(ctx, req.Service())
		if err := ctx.Err(); err != nil {
			return contextError(err)
		}
	}
	return f.Client.Call(ctx, req, rsp, opts...)
}

// group returns the group of a service. It creates the group if there is none.
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
