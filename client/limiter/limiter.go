// Package limiter is go-plugins' wrapper of uber's rate limiter, without slack; a call
// that has waited does not go out after an interrupt.
package limiter

import (
	"context"

	"github.com/micro/go-micro/client"
	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"go.uber.org/ratelimit"

	"github.com/gomicroexample/basis/client/calls"
)

// New returns a wrapper that lets so many calls a second through, of all callers
// together, and has the others wait; 0 is no limit. It has no slack, by which uber's
// limiter makes up for idle time with a burst of up to 10 calls.
//
// A call that has waited asks calls.Begin: after an interrupt it does not go out.
func New(perSecond int) client.Wrapper {
	return func(c client.Client) client.Client {
		c = &gated{c}
		if perSecond > 0 {
			c = rateplugin.NewClientWrapper(perSecond, ratelimit.WithoutSlack)(c)
		}
		return c
	}
}

type gated struct{ client.Client }

func (b *gated) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	if err := calls.Begin(ctx); err != nil {
		return err
	}
	return b.Client.Call(ctx, req, rsp, opts...)
}
