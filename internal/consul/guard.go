package consul

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
)

// guard is the watch of one node's agent. When the agent is gone, the registry registers the node
// at another agent at once. It does not wait for the next renewal of the registration: a few
// seconds after an agent has died, Consul already lists the agent's nodes as critical.
type guard struct {
	address string // the address of the agent
	service *registry.Service
	options []registry.RegisterOption
	ctx     context.Context
	cancel  context.CancelFunc
}

// guard starts to watch the agent at address, at which a node has just been registered. The watch
// begins after pause. If the agent is already watched for this node, guard only stores s and opts.
// If there is no other agent, guard does not watch. r.registering must be held.
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
			// If the new agent also fails at once, the node moves again. The pause queryInterval
			// keeps these moves from becoming a busy loop. Ignore the error: if the failure lasts,
			// the next renewal returns an error.
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

// awaitEnd queries the agent again and again until a request fails, and then returns true. The
// reason may be that the agent has exited or restarted, or that a proxy has ended a request that
// took long. The first request is sent after pause. awaitEnd returns false if ctx ends, if the
// agent responds with an error, or if the response cannot be decoded.
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
			pause = queryInterval // prevents a busy loop if the agent responds at once
		}
	}
}
