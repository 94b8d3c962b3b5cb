package conns

import (
	"slices"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/nodes"
)

const (
	// spellFailures is how many 5xx in a row begin a node's bad spell: as in
	// Envoy's outlier detection by default (consecutive_5xx), since one or two
	// may be due to what was asked.
	spellFailures = 5
	// spell is how long it lasts. Envoy's 30 s (base_ejection_time) are not
	// needed: a call that then finds the node no better is tried again elsewhere.
	spell = 3 * time.Second
)

// What is against a node. A rank is a sum of these: the last counts for more than
// the others together.
const (
	triedBefore = 1 << iota
	badSpell
	notConnected
)

// Prefer is the last client wrapper, inside the one that sets the selector's
// strategy. For each attempt, it has that choose from the nodes that are connected;
// of those, the ones without a bad spell, which several 5xx in a row begin; of
// those, the ones that this call was not tried at. A rule that leaves none is
// skipped.
func (p *Pool) Prefer(c client.Client) client.Client {
	return nodes.WithSelectOption(c, func(o *selector.SelectOptions) {
		strategy := o.Strategy
		o.Strategy = func(services []*registry.Service) selector.Next {
			p.forget(services)
			var tried []string // addresses; attempts come one after another
			return func() (*registry.Node, error) {
				node, err := strategy(p.preferred(services, tried))()
				if err == nil {
					tried = append(tried, node.Address)
				}
				return node, err
			}
		}
	})
}

// preferred returns the services' nodes of the lowest rank, as one service.
func (p *Pool) preferred(services []*registry.Service, tried []string) []*registry.Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best []*registry.Node
	lowest := notConnected | badSpell | triedBefore
	for _, service := range services {
		for _, node := range service.Nodes {
			rank := p.rank(node.Address, tried)
			if rank < lowest {
				lowest, best = rank, best[:0]
			}
			if rank == lowest {
				best = append(best, node)
			}
		}
	}
	one := *services[0]
	one.Nodes = best
	return []*registry.Service{&one}
}

// rank returns what is against a node. p.mu must be held.
func (p *Pool) rank(address string, tried []string) int {
	rank := 0
	if slices.Contains(tried, address) {
		rank |= triedBefore
	}
	c := p.conns[address]
	if c == nil {
		return rank
	}
	if !c.spellEnds.IsZero() && time.Now().Before(c.spellEnds) {
		rank |= badSpell
	}
	if !c.mayCall() {
		rank |= notConnected
	}
	return rank
}

// mayCall reports whether c is connected, or still connecting for the first time. It
// has one that is idle connect. The pool's mutex must be held.
func (c *conn) mayCall() bool {
	switch c.GetState() {
	case connectivity.Ready:
		c.untried = false
		return true
	case connectivity.TransientFailure:
		c.untried = false
		return false
	case connectivity.Idle:
		c.Connect()
	}
	return c.untried
}

// note takes down how a call over c ended. All but a server's error ends a row of
// those, even a timeout.
func (p *Pool) note(c *conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isServerError(err) {
		c.failures = 0
		return
	}
	if c.failures++; c.failures >= spellFailures {
		c.spellEnds = time.Now().Add(spell)
	}
}

// isServerError reports whether the server failed: with a 5xx, or with an error that is
// none of go-micro's, which gRPC's servers make Unknown.
func isServerError(err error) bool {
	if err == nil {
		return false
	}
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		return failure.IsServerError(e)
	}
	return s.Code() == codes.Unknown
}
