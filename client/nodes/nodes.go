// Package nodes finds a service's nodes, spreads calls over them and tells which one
// was called.
package nodes

import (
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

// lookupInterval is how often Find asks again. An mDNS answer takes up to 100 ms, and
// may be lost.
const lookupInterval = 100 * time.Millisecond

// Find waits until c's selector knows a node of service or ctx is done. A registry that
// cannot be asked ends it at once. Its error says what to do.
//
// It also fills the selector's cache, before many callers at once would race to.
func Find(ctx context.Context, c client.Client, service string) error {
	r := c.Options().Registry
	none := fmt.Errorf(`no node of %s is registered in %s; start one with "go run ./srv"`, service, consul.Place(r))
	late := consul.Explain(r, errors.New("no answer in time"))
	for {
		found := make(chan error, 1)
		go func() {
			next, err := c.Options().Selector.Select(service)
			if err == nil {
				_, err = next()
			}
			found <- err
		}()
		select {
		case err := <-found:
			switch err {
			case nil:
				return nil
			case registry.ErrNotFound, selector.ErrNotFound, selector.ErrNoneAvailable:
				late = none // but the registry answers
			default:
				return consul.Explain(r, err)
			}
		case <-ctx.Done():
		}
		select {
		case <-time.After(lookupInterval):
		case <-ctx.Done():
			if ctx.Err() == context.Canceled {
				return errors.New("interrupted")
			}
			return late
		}
	}
}

// RandomStart sorts the nodes by ID, since a registry may list them in another order
// each time, and has roundRobin, go-plugins' wrapper, start at a random one. Its counter
// starts at 0 in every process, so that one-shot clients would all call the same.
func RandomStart(roundRobin client.Wrapper) client.Wrapper {
	start := rand.Uint32()
	filter := selector.WithFilter(func(services []*registry.Service) []*registry.Service {
		var all []*registry.Node
		for _, s := range services { // the versions of one
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
	})
	return func(c client.Client) client.Client {
		return WithSelectOption(roundRobin(c), filter)
	}
}

// WithSelectOption returns c with option put after each call's own.
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

// Attempt is one attempt of a call, at the node at Address (host:port).
type Attempt struct {
	Address string
	Sent    time.Time // when it was about to be sent
}

type lastKey struct{}

// Watch returns a context for one call, and what will point to its last attempt if
// Call is among the client's call wrappers. It is atomic because a call that the
// breaker gave up runs on for a moment.
func Watch(ctx context.Context) (context.Context, *atomic.Pointer[Attempt]) {
	last := new(atomic.Pointer[Attempt])
	return context.WithValue(ctx, lastKey{}, last), last
}

// Call is a call wrapper, for micro.WrapCall. It records each attempt for Watch.
func Call(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		if last, ok := ctx.Value(lastKey{}).(*atomic.Pointer[Attempt]); ok {
			last.Store(&Attempt{node.Address, time.Now()})
		}
		return next(ctx, node, req, rsp, opts)
	}
}
