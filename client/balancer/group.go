package balancer

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
)

// group is one service: its nodes, and the connections to them.
type group struct {
	service  string
	balancer *Balancer
	known    atomic.Pointer[snapshot] // nil until the first lookup has found some

	// offered has the best nodes as of a version of the group. Whatever may change which
	// nodes are best makes a new version.
	offered atomic.Pointer[offering]
	version atomic.Int64
	calls   atomic.Uint64 // that got an offer

	retries atomic.Uint64 // attempts after the first one of a call
	opened  atomic.Uint64 // connections

	mu        sync.Mutex       // never held during I/O
	conns     map[string]*conn // by address
	lookup    *lookup          // the latest; nil before the first
	lookingUp bool             // it is in progress
	repeat    bool             // it is to be repeated
	lookedUp  time.Time        // when the one before ended
	closed    bool             // no connection is created any more
	swept     time.Time        // when all silent connections were probed last
}

// snapshot is the nodes of a service as of a time. It is not changed.
type snapshot struct {
	versions []*registry.Service
	sorted   []*registry.Node
	at       time.Time
}

// offering is the best nodes, in pieces of at most maxOffer nodes.
type offering struct {
	pieces  [][]*registry.Service // each has one service
	nodes   int                   // in all pieces
	version int64                 // of the group
	until   time.Time             // when the first ejection ends; zero without one
}

// maxOffer is how many nodes the strategy gets at once: go-plugins' round robin copies the
// list for each call. The pieces take turns, each for as many calls as it has nodes, so
// that all nodes have been called once after one turn of all pieces.
const maxOffer = 64

// newOffering cuts nodes into pieces.
func newOffering(service string, nodes []*registry.Node, version int64, until time.Time) *offering {
	o := &offering{nodes: len(nodes), version: version, until: until}
	for piece := range slices.Chunk(nodes, maxOffer) {
		o.pieces = append(o.pieces, []*registry.Service{{Name: service, Nodes: piece}})
	}
	return o
}

// piece returns the piece whose turn it is in the call with the given number.
func (o *offering) piece(call uint64) []*registry.Service {
	if o.nodes == 0 {
		return nil
	}
	return o.pieces[call%uint64(o.nodes)/maxOffer]
}

// outdated reports whether an ejection has ended since.
func (o *offering) outdated() bool { return !o.until.IsZero() && !time.Now().Before(o.until) }

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

// set takes the result of a lookup, and returns whether the lookup is over. If the
// registry has no node any more, the group has none. If the registry fails, the last
// known nodes stay in use. It closes the connections to nodes that are not listed.
func (g *group) set(versions []*registry.Service, err error) (over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.repeat {
		g.repeat = false
		return false
	}
	g.lookingUp, g.lookedUp = false, time.Now()
	if g.closed {
		return true
	}
	switch {
	case err == nil:
		g.known.Store(&snapshot{versions, g.balancer.sorted(versions), g.lookedUp})
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, selector.ErrNoneAvailable):
		g.known.Store(nil)
	default:
		if known := g.known.Load(); known != nil {
			g.known.Store(&snapshot{known.versions, known.sorted, g.lookedUp}) // ask again after refreshInterval
		}
		return true
	}
	g.version.Add(1)
	g.closeUnlisted()
	return true
}

// closeUnlisted closes the connections to nodes that are not listed. g.mu must be held.
func (g *group) closeUnlisted() {
	listed := map[string]bool{}
	for _, node := range g.nodes() {
		listed[node.Address] = true
	}
	for address, c := range g.conns {
		if !listed[address] {
			delete(g.conns, address)
			c.retire()
		}
	}
}

// close closes all connections.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.known.Store(nil)
	g.closeUnlisted()
}

// copy returns the versions of the service, for filters.
func (g *group) copy() []*registry.Service {
	if known := g.known.Load(); known != nil {
		return registry.Copy(known.versions)
	}
	return nil
}

// nodes returns the known nodes, sorted. They are not to be changed.
func (g *group) nodes() []*registry.Node {
	if known := g.known.Load(); known != nil {
		return known.sorted
	}
	return nil
}

// offer returns the nodes that there is the least reason to avoid, or a piece of them, as
// one service. tried are the addresses of the call's earlier attempts.
func (g *group) offer(tried []string) []*registry.Service {
	if len(tried) > 0 {
		best, _ := g.best(g.nodes(), tried)
		return []*registry.Service{{Name: g.service, Nodes: best}}
	}
	o := g.offered.Load()
	if version := g.version.Load(); o == nil || o.version != version || o.outdated() {
		best, until := g.best(g.nodes(), nil)
		o = newOffering(g.service, best, version, until) // of the version before the look at the nodes
		g.offered.Store(o)
	}
	return o.piece(g.calls.Add(1) - 1)
}
