// Package nodes finds the nodes of a service, spreads calls over them and tells
// which one was called.
package nodes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/internal/consul"
)

// lookupInterval is how often Find asks again while there is nothing. An mDNS
// answer may be lost, and takes up to 100 ms.
const lookupInterval = 100 * time.Millisecond

// Find waits until ctx is done for c's selector to know a node of service. Its
// error says whether the registry could not be asked or knows of no node, and
// what to do. Only the latter is worth waiting for.
//
// Called before the first call, it also fills the selector's cache, which many
// callers at once would race to do.
func Find(ctx context.Context, c client.Client, service string) error {
	r := c.Options().Registry
	none := fmt.Errorf(`no node of %s is registered in %s; start one with "go run ./srv"`, service, consul.Place(r))
	timeout := consul.Explain(r, errors.New("no answer in time"))
	for {
		found := make(chan error, 1)
		go func() { found <- lookUp(c.Options().Selector, service) }()
		select {
		case err := <-found:
			if err == nil {
				return nil
			}
			if !isNone(err) {
				return consul.Explain(r, err)
			}
			timeout = none
		case <-ctx.Done():
			return cmp.Or(interrupted(ctx), timeout)
		}
		select {
		case <-time.After(lookupInterval):
		case <-ctx.Done():
			return cmp.Or(interrupted(ctx), none)
		}
	}
}

// interrupted returns an error if ctx ended before its time.
func interrupted(ctx context.Context) error {
	if ctx.Err() == context.Canceled {
		return errors.New("interrupted")
	}
	return nil
}

func lookUp(s selector.Selector, service string) error {
	next, err := s.Select(service)
	if err != nil {
		return err
	}
	_, err = next()
	return err
}

// isNone reports whether err says that the registry answered, but with no node.
func isNone(err error) bool {
	return err == registry.ErrNotFound || err == selector.ErrNotFound || err == selector.ErrNoneAvailable
}

// RandomStart returns roundRobin, go-plugins' wrapper, made to start its round
// at a random node. Its counter starts at 0 in every process, so without this
// every one-shot client would call the same node.
//
// The nodes go round in the order of their IDs. A registry may list them in
// another order each time it is asked, which would make the round uneven.
func RandomStart(roundRobin client.Wrapper) client.Wrapper {
	start := rand.Uint32()
	filter := selector.WithFilter(func(services []*registry.Service) []*registry.Service {
		return rotate(services, start)
	})
	return func(c client.Client) client.Client {
		return WithSelectOption(roundRobin(c), filter)
	}
}

// WithSelectOption returns c with option added to each call's, after those that
// the caller gives.
func WithSelectOption(c client.Client, option selector.SelectOption) client.Client {
	return &withOption{Client: c, option: client.WithSelectOption(option)}
}

type withOption struct {
	client.Client
	option client.CallOption
}

func (w *withOption) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	return w.Client.Call(ctx, req, rsp, append(slices.Clip(opts), w.option)...)
}

// rotate returns the nodes of all services, which are the versions of one, as
// those of a single service: sorted by ID and rotated by start.
func rotate(services []*registry.Service, start uint32) []*registry.Service {
	var all []*registry.Node
	for _, s := range services {
		all = append(all, s.Nodes...)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *registry.Node) int { return strings.Compare(a.Id, b.Id) })
	first := int(start % uint32(len(all)))
	one := *services[0]
	one.Nodes = slices.Concat(all[first:], all[:first])
	return []*registry.Service{&one}
}

// Called tells of the node that a call went to, the last one where it was tried
// again.
type Called struct {
	last atomic.Pointer[attempt]
}

type attempt struct {
	address string
	time    time.Time
}

// Address returns host:port, or "" if the call never got as far as a node.
func (c *Called) Address() string {
	if a := c.last.Load(); a != nil {
		return a.address
	}
	return ""
}

// Time returns when the call was sent there, or the zero time.
func (c *Called) Time() time.Time {
	if a := c.last.Load(); a != nil {
		return a.time
	}
	return time.Time{}
}

type calledKey struct{}

// Watch returns a context for one call, and what will hold its node if Call is
// among the client's call wrappers.
func Watch(ctx context.Context) (context.Context, *Called) {
	called := new(Called)
	return context.WithValue(ctx, calledKey{}, called), called
}

// Call is a call wrapper, for micro.WrapCall. It tells Watch of the node.
func Call(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		if called, ok := ctx.Value(calledKey{}).(*Called); ok {
			called.last.Store(&attempt{node.Address, time.Now()})
		}
		return next(ctx, node, req, rsp, opts)
	}
}
