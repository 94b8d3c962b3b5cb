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

// group has the nodes of one service, and the connections to these nodes.
type group struct {
	service  string
	balancer *Balancer
	known    atomic.Pointer[snapshot] // nil if no node is known

	// offered caches the best nodes for one version of the group. Every event that may change the
	// best nodes increments version.
	offered atomic.Pointer[offering]
	version atomic.Int64
	offers  atomic.Uint64 // number of pieces that offer has returned

	retries atomic.Uint64 // attempts after the first attempt of a call
	opened  atomic.Uint64 // TCP connections opened

	mu        sync.Mutex       // never held during I/O
	conns     map[string]*conn // by address
	lookup    *lookup          // the latest lookup; nil before the first lookup
	lookingUp bool             // lookup is in progress
	repeat    bool             // lookup must be repeated
	lookedUp  time.Time        // when the last lookup ended
	closed    bool             // the group creates no more connections
	swept     time.Time        // when suspect last probed all silent connections
}

// snapshot is an immutable list of a service's nodes.
type snapshot struct {
	versions []*registry.Service // as the registry returned them
	sorted   []*registry.Node    // the nodes of all versions, as Balancer.sorted returns them
	at       time.Time           // when the last lookup ended
}

// offering holds the best nodes, in pieces of at most maxOffer nodes.
type offering struct {
	pieces  [][]*registry.Service // each piece is one service with some of the nodes
	nodes   int                   // number of nodes in all pieces
	version int64                 // version of the group
	until   time.Time             // when the first ejection ends; zero if no node is ejected
}

// maxOffer is the maximum number of nodes that the strategy gets at once. It applies to the first
// attempt of a call, if the call has no filters. The number is limited because go-plugins' round
// robin copies the list of nodes for each call. The pieces take turns: in its turn, a piece serves
// as many calls as it has nodes. So when every piece has had one turn, every node has been called
// once.
const maxOffer = 64

// newOffering returns an offering of nodes.
func newOffering(service string, nodes []*registry.Node, version int64, until time.Time) *offering {
	o := &offering{nodes: len(nodes), version: version, until: until}
	for piece := range slices.Chunk(nodes, maxOffer) {
		o.pieces = append(o.pieces, []*registry.Service{{Name: service, Nodes: piece}})
	}
	return o
}

// piece returns the piece for the call with the given number, or nil if there are no nodes.
func (o *offering) piece(call uint64) []*registry.Service {
	if o.nodes == 0 {
		return nil
	}
	turn := call % uint64(o.nodes)
	return o.pieces[turn/maxOffer]
}

// outdated reports whether an ejection has ended since the offering was made.
func (o *offering) outdated() bool { return !o.until.IsZero() && !time.Now().Before(o.until) }

// sorted returns the nodes of all versions of a service in the order of their IDs. The list starts
// at a node that b.start selects. After the node with the highest ID, the list continues with the
// node with the lowest ID.
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

// set stores the result of a lookup, and reports whether the lookup is over. A lookup is not over
// if the registry reported a change during the lookup; set then ignores the result. If the registry
// lists no node, the group has no node. If the registry fails, the last known nodes stay in use.
// Otherwise, set closes the connections to nodes that the registry does not list.
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
			// With the new time, the next lookup starts only after refreshInterval.
			g.known.Store(&snapshot{known.versions, known.sorted, g.lookedUp})
		}
		return true
	}
	g.version.Add(1)
	g.closeUnlisted()
	return true
}

// closeUnlisted closes the connections to nodes that the registry does not list. g.mu must be held.
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

// close closes all connections, each when its in-flight calls have ended.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.known.Store(nil)
	g.closeUnlisted()
}

// copy returns a copy of the service's versions. Filters may change the copy.
func (g *group) copy() []*registry.Service {
	if known := g.known.Load(); known != nil {
		return registry.Copy(known.versions)
	}
	return nil
}

// nodes returns the known nodes, sorted. The caller must not change them.
func (g *group) nodes() []*registry.Node {
	if known := g.known.Load(); known != nil {
		return known.sorted
	}
	return nil
}

// offer returns the best nodes for an attempt, in a list with one service. tried has the addresses
// of the call's earlier attempts. For the first attempt of a call, offer returns one piece of the
// best nodes.
func (g *group) offer(tried []string) []*registry.Service {
	if len(tried) > 0 {
		best, _ := g.best(g.nodes(), tried)
		return []*registry.Service{{Name: g.service, Nodes: best}}
	}
	o := g.offered.Load()
	if version := g.version.Load(); o == nil || o.version != version || o.outdated() {
		best, until := g.best(g.nodes(), nil)
		// version was read before the nodes. If the nodes changed in between, the offering has an
		// old version, and the next call of offer replaces it.
		o = newOffering(g.service, best, version, until)
		g.offered.Store(o)
	}
	return o.piece(g.offers.Add(1) - 1)
}
