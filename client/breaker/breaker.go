// Package breaker gives go-plugins' hystrix wrapper what it leaves out: neither a
// caller's own mistakes nor its own haste open the circuit, and a call that was
// given up on does not run on.
package breaker

import (
	"context"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/failure"
)

// Guard returns a wrapper that puts hystrix, go-plugins' wrapper, between two
// layers of its own.
//
// The outer one refuses calls beyond maxConcurrent under way with
// hystrix.ErrMaxConcurrency. Hystrix counts a call as under way for a moment
// after it has answered, so that even a single caller is refused by a limit of
// two now and then, and it counts its refusals as failures that open the
// circuit. Its own limit should be higher by Headroom.
//
// The outer layer also gives each call a deadline, the client's request timeout,
// and cancels the call as soon as hystrix has its outcome. Hystrix itself leaves
// a call that it timed out running, on the server too, with its slot already
// given to the next.
//
// The inner one hides from hystrix the errors that are the caller's own, as
// failure.IsCallers tells; the caller still gets them.
func Guard(wrap client.Wrapper, maxConcurrent int) client.Wrapper {
	return func(c client.Client) client.Client {
		return &outer{Client: wrap(&inner{c}), slots: make(chan struct{}, maxConcurrent)}
	}
}

// Headroom is how much higher than Guard's limit that of hystrix should be, for
// calls that have answered and that it still counts.
const Headroom = 1000

// hiddenKey is the context key of a call's hidden error.
type hiddenKey struct{}

type outer struct {
	client.Client
	slots chan struct{} // one in it for each call under way
}

func (o *outer) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	default:
		return hystrix.ErrMaxConcurrency
	}
	ctx, cancel := context.WithTimeout(ctx, o.Options().CallOptions.RequestTimeout)
	defer cancel()

	var hidden error
	err := o.Client.Call(context.WithValue(ctx, hiddenKey{}, &hidden), req, rsp, opts...)
	if err != nil {
		// After a timeout the call may still be running and about to write
		// hidden, which must not be read then.
		return err
	}
	return hidden
}

type inner struct{ client.Client }

func (i *inner) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	err := i.Client.Call(ctx, req, rsp, opts...)
	if hidden, ok := ctx.Value(hiddenKey{}).(*error); ok && failure.IsCallers(err) {
		*hidden = err
		return nil
	}
	return err
}
