package consul

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
)

// guard is a node whose agent is watched, so that the node is registered at another agent
// as soon as its own is gone. Consul lists the nodes of a dead agent as critical after a
// few seconds, and a server may renew its registration later than that.
type guard struct {
	address string // of the agent
	service *registry.Service
	options []registry.RegisterOption
	ctx     context.Context
	cancel  context.CancelFunc
}

// guard watches the agent at which a node has just been registered, if there are others. It
// begins after pause. r.registering must be held.
func (r *consulRegistry) guard(address string, pause time.Duration, s *registry.Service, opts []registry.RegisterOption) {
	id := s.Nodes[0].Id
	s = registry.Copy([]*registry.Service{s})[0]
	if g := r.guards[id]; g != nil && g.address == address {
		g.service, g.options = s, opts
		return
	}
	r.unguard(id)
	if len(r.agents()) < 2 {
		return
	}
	g := &guard{address: address, service: s, options: opts}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	r.guards[id] = g
	go func() {
		gone := r.awaitEnd(g.ctx, pause, address, id)
		r.registering.Lock()
		defer r.registering.Unlock()
		if g.ctx.Err() != nil { // the node has been deregistered, or has moved
			return
		}
		r.unguard(id)
		if gone {
			// With a pause, so that two agents that answer oddly do not make this spin. An
			// error shows at the next renewal.
			_ = r.register(queryInterval, g.service, g.options...)
		}
	}()
}

// unguard ends the watch of a node's agent. r.registering must be held.
func (r *consulRegistry) unguard(id string) {
	if g := r.guards[id]; g != nil {
		g.cancel()
		delete(r.guards, id)
	}
}

// awaitEnd waits until a request to the agent fails, and reports that: the agent has ended or
// has been restarted, or a proxy has ended a request that took long. It begins after pause.
// It returns false if ctx ends, or if the agent does not say whether it has the node.
func (r *consulRegistry) awaitEnd(ctx context.Context, pause time.Duration, address, id string) (gone bool) {
	config := r.configFor(address, answerTimeout)
	client, err := api.NewClient(&config)
	if err != nil {
		return false
	}
	var hash string
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
		options := &api.QueryOptions{WaitHash: hash, WaitTime: waitTime}
		_, meta, err := client.Agent().Service(id, options.WithContext(ctx))
		if err != nil {
			return ctx.Err() == nil && errors.As(err, new(*url.Error))
		}
		if hash = meta.LastContentHash; hash == "" || options.WaitHash != "" {
			pause = queryInterval // whatever makes the agent answer at once
		}
	}
}
