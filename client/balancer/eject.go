package balancer

import (
	"slices"
	"time"

	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/client/failure"
)

const (
	// ejectFailures is the number of consecutive server errors that eject a node. The value is the
	// default of Envoy's outlier detection (consecutive_5xx). One or two errors are not enough,
	// because the cause may be the requests and not the node.
	ejectFailures = 5
	// ejectTime is how long a node stays ejected. Envoy's default (base_ejection_time) is 30 s. A
	// shorter time is enough here, because go-micro retries the failed calls at other nodes.
	ejectTime = 3 * time.Second
)

// These are the reasons to avoid a node, from the weakest to the strongest. Each reason outweighs
// all weaker reasons together.
const (
	triedBefore = 1 << iota
	ejected
	notConnected
)

// best returns the nodes with the weakest reasons to avoid them. tried has the addresses of the
// call's earlier attempts. until is the time at which the next ejection ends, or the zero time if
// no node is ejected.
func (g *group) best(nodes []*registry.Node, tried []string) (best []*registry.Node, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	lowest := notConnected | ejected | triedBefore
	for _, node := range nodes {
		rank := 0
		if c := g.conns[node.Address]; c != nil {
			if !c.callable() {
				rank |= notConnected
			}
			if now.Before(c.ejectedUntil) {
				rank |= ejected
				if until.IsZero() || c.ejectedUntil.Before(until) {
					until = c.ejectedUntil
				}
			}
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
	return best, until
}

// note records the outcome of an attempt over c. Any outcome except a server error, even a timeout,
// resets the count of consecutive server errors. The end of an ejection does not reset the count:
// one more server error ejects the node again.
func (g *group) note(c *conn, outcome failure.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !outcome.EjectsNode() {
		c.failures = 0
		return
	}
	if c.failures++; c.failures >= ejectFailures {
		c.ejectedUntil = time.Now().Add(ejectTime)
		g.version.Add(1)
	}
}
