// Package breaker mends go-plugins' hystrix wrapper: neither a caller's own mistakes
// nor its haste open the circuit, and a call that was given up does not run on.
package breaker

import (
	"context"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/failure"
)

// Guard puts wrap, go-plugins' wrapper, between two layers.
//
// The outer one refuses, with hystrix.ErrMaxConcurrency, calls beyond maxConcurrent
// (1 or more) under way. Hystrix would count a refusal as a failure, and a call as
// under way for a moment after its answer; its own limit should be higher, by
// Headroom. The outer layer also gives each call the client's request timeout as its
// deadline, and cancels it once hystrix has its outcome: one that timed out would run
// on, on the server too.
//
// The inner one hides from hystrix, but not from the caller, errors that are the
// caller's own (failure.IsCallerError).
func Guard(wrap client.Wrapper, maxConcurrent int) client.Wrapper {
	return func(c client.Client) client.Client {
		return &outer{Client: wrap(&inner{c}), slots: make(chan struct{}, maxConcurrent)}
	}
}

// Headroom is for calls that were answered and that hystrix still counts: as many as
// may end within a moment.
const Headroom = 1000

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
		return err // and leave hidden alone: a call that timed out may still write it
	}
	return hidden
}

type inner struct{ client.Client }

func (i *inner) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	err := i.Client.Call(ctx, req, rsp, opts...)
	if failure.IsCallerError(err) {
		*ctx.Value(hiddenKey{}).(*error) = err
		return nil
	}
	return err
}
