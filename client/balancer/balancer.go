// Package balancer chooses the node for each attempt of a call, and makes the attempt
// over one gRPC connection per node that all callers share. It serves a client of any
// number of services.
//
// go-plugins' round robin does the choosing, among the nodes that the balancer offers:
// connected ones, that do not fail at everything. go-micro alone calls a dead node
// until its TTL has passed. go-micro's pool gives each call in flight a connection of
// its own, and closes the connection after any error.
package balancer

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc/connectivity"
)

const (
	// ejectFailures is the number of consecutive server errors that eject a node. It is
	// the default of Envoy's outlier detection (consecutive_5xx): one or two errors may
	// be due to the requests.
	ejectFailures = 5
	// ejectTime is how long a node stays ejected. Envoy's default (base_ejection_time) is
	// 30 s. Less is enough here, because a call that fails at the node is retried at
	// another one.
	ejectTime = 3 * time.Second
)

// Balancer holds the connections of one client. Wrap and WrapCall install it. A
// Balancer is safe for concurrent use.
type Balancer struct {
	tls   *tls.Config // nil for plaintext
	start uint32      // where the round robin starts

	mu     sync.Mutex                  // never held during I/O
	groups map[string]map[string]*conn // by service and address
}

// New returns a balancer without connections. It connects to a node before the first
// call to the node, with TLS unless config is nil. If config has no ServerName, the
// certificate of a node has to have the name of its service.
func New(config *tls.Config) *Balancer {
	return &Balancer{tls: config, start: rand.Uint32(), groups: map[string]map[string]*conn{}}
}

// Close closes all connections; calls in flight finish first. A later call connects
// again.
func (b *Balancer) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, conns := range b.groups {
		for _, c := range conns {
			c.retire()
		}
	}
	clear(b.groups)
}

// Wrap returns a client wrapper: roundRobin, which is go-plugins' wrapper, choosing
// from the nodes that the balancer offers. It has to be the innermost client wrapper.
//
// For each attempt the balancer offers the nodes that are connected; of those, the
// nodes that are not ejected; of those, the nodes that the same call was not attempted
// at. A rule that leaves no node is skipped. Five consecutive server errors eject a node
// for three seconds.
//
// The nodes are offered in the order of their IDs, from a random one on. The counter of
// roundRobin starts at 0 in each process, and a registry may list nodes in any order:
// without both measures, programs that make one call each would not spread their calls.
func (b *Balancer) Wrap(roundRobin client.Wrapper) client.Wrapper {
	return func(c client.Client) client.Client {
		return roundRobin(&chooser{Client: c, option: client.WithSelectOption(func(o *selector.SelectOptions) {
			o.Strategy = b.strategy(o.Strategy)
		})})
	}
}

// chooser is a client that puts option after each call's own options.
type chooser struct {
	client.Client
	option client.CallOption
}

func (c *chooser) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	return c.Client.Call(ctx, req, rsp, append(slices.Clip(opts), c.option)...)
}

// strategy returns a selector's strategy that has next choose from the offered nodes.
func (b *Balancer) strategy(next selector.Strategy) selector.Strategy {
	return func(services []*registry.Service) selector.Next {
		if len(services) == 0 {
			return next(services)
		}
		service, nodes := services[0].Name, b.sorted(services)
		b.forget(service, nodes)
		var tried []string // addresses; a call's attempts do not overlap
		return func() (*registry.Node, error) {
			offer := *services[0]
			offer.Nodes = b.offer(service, nodes, tried)
			node, err := next([]*registry.Service{&offer})()
			if err == nil {
				tried = append(tried, node.Address)
			}
			return node, err
		}
	}
}

// sorted returns the nodes of all versions of a service, by ID, from a random one on.
func (b *Balancer) sorted(versions []*registry.Service) []*registry.Node {
	var all []*registry.Node
	for _, s := range versions {
		all = append(all, s.Nodes...)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *registry.Node) int { return strings.Compare(a.Id, b.Id) })
	first := int(b.start % uint32(len(all)))
	return slices.Concat(all[first:], all[:first])
}

// Reasons to avoid a node, mildest first. Each outweighs all earlier ones together.
const (
	triedBefore = 1 << iota
	ejected
	notConnected
)

// offer returns the nodes that there is the least reason to avoid.
func (b *Balancer) offer(service string, nodes []*registry.Node, tried []string) []*registry.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var best []*registry.Node
	lowest := notConnected | ejected | triedBefore
	for _, node := range nodes {
		rank := 0
		if c := b.groups[service][node.Address]; c != nil {
			rank = c.rank()
		}
		if slices.Contains(tried, node.Address) {
			rank |= triedBefore
		}
		if rank < lowest {
			lowest, best = rank, best[:0]
		}
		if rank == lowest {
			best = append(best, node)
		}
	}
	return best
}

// rank returns the reasons to avoid the node of c. The balancer's mutex must be held.
func (c *conn) rank() int {
	rank := 0
	if !c.ejectedUntil.IsZero() && time.Now().Before(c.ejectedUntil) {
		rank |= ejected
	}
	if !c.mayCall() {
		rank |= notConnected
	}
	return rank
}

// mayCall reports whether c is connected, or connecting for the first time. It starts
// connecting an idle connection. The balancer's mutex must be held.
func (c *conn) mayCall() bool {
	switch c.GetState() {
	case connectivity.Ready:
		c.untried = false
		return !c.probed
	case connectivity.TransientFailure:
		c.untried = false
		return false
	case connectivity.Idle:
		c.Connect()
	}
	return c.untried
}

// forget closes the connections of service to nodes that are not in the list any more.
func (b *Balancer) forget(service string, nodes []*registry.Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	conns := b.groups[service]
	if len(conns) <= len(nodes) {
		return // and look again when there are more connections than nodes
	}
	listed := map[string]bool{}
	for _, node := range nodes {
		listed[node.Address] = true
	}
	for address, c := range conns {
		if !listed[address] {
			delete(conns, address)
			c.retire()
		}
	}
}
