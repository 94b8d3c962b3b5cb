// Package breaker gives go-plugins' hystrix wrapper what it leaves out: a
// caller's own mistakes do not open the circuit, and a call that was given up
// on does not run on.
package breaker

import (
	"context"

	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/failure"
)

// Guard returns a wrapper that puts hystrix, go-plugins' wrapper, between two
// layers of its own.
//
// The outer one gives each call a deadline, the client's request timeout
// (--client_request_timeout, 5 s by default), and cancels the call as soon as
// hystrix has its outcome. Hystrix itself leaves a call that it timed out
// running, on the server too, with its slot already given to the next.
//
// The inner one hides from hystrix the errors that are the caller's own, as
// failure.IsCallers tells; the caller still gets them.
func Guard(hystrix client.Wrapper) client.Wrapper {
	return func(c client.Client) client.Client {
		return &outer{Client: hystrix(&inner{c})}
	}
}

// hiddenKey is the context key of a call's hidden error.
type hiddenKey struct{}

type outer struct{ client.Client }

func (o *outer) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
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
