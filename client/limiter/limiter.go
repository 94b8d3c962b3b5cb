// Package limiter is go-plugins' wrapper around uber's rate limiter, without
// slack and with an end to waiting.
package limiter

import (
	"context"

	"github.com/micro/go-micro/client"
	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"go.uber.org/ratelimit"

	"github.com/gomicroexample/basis/client/calls"
)

// New returns a wrapper that lets so many calls a second through, of all callers
// together, and has the others wait; for 0 it has no limit. Without slack, calls
// that were not made while nobody called are not made up for by a burst, which
// uber's limiter allows by default, of 10 calls.
//
// A call that has waited is counted as begun, by calls.Begin. What has not passed
// the limiter when the client is interrupted does not go out.
func New(perSecond int) client.Wrapper {
	return func(c client.Client) client.Client {
		c = &beginning{c}
		if perSecond > 0 {
			c = rateplugin.NewClientWrapper(perSecond, ratelimit.WithoutSlack)(c)
		}
		return c
	}
}

// beginning is a client whose calls are counted as begun.
type beginning struct{ client.Client }

func (b *beginning) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	if err := calls.Begin(ctx); err != nil {
		return err
	}
	return b.Client.Call(ctx, req, rsp, opts...)
}
