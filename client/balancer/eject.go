package balancer

import (
	"slices"
	"time"

	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/client/failure"
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

// Reasons to avoid a node, mildest first. Each outweighs all earlier ones together.
const (
	triedBefore = 1 << iota
	ejected
	notConnected
)

// best returns the nodes that there is the least reason to avoid, and when the first
// ejection ends; the zero time without one.
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

// note records how a call over c ended. Any outcome but a server error ends the series
// of consecutive failures, even a timeout.
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
