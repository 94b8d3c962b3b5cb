// Package breaker completes go-plugins' hystrix wrapper. Only failures of the service
// open the circuit, callers' timeouts hold, and a call that hystrix gave up is
// canceled.
package breaker

import (
	"context"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/failure"
)

// Headroom is to be added to hystrix's own MaxConcurrentRequests. Hystrix counts a call
// as in flight for a moment after its response: Headroom is more calls than end within
// such a moment.
const Headroom = 1000

// New returns a wrapper that puts plugin, go-plugins' hystrix wrapper, between two
// layers.
//
// The outer layer rejects calls beyond maxConcurrent (1 or more) in flight, with
// hystrix.ErrMaxConcurrency; hystrix itself would count the rejection as a failure. It
// sets the call's request timeout as the deadline of its context: the timeout of the
// call's own options or the client's, or the deadline that the context has already, if
// that is earlier. It cancels the context when hystrix returns: a call that timed out
// would run on otherwise, on the server too.
//
// The inner layer reports an error to hystrix only if failure.Outcome.OpensCircuit
// says so. The caller gets every error.
//
// Each service's endpoint has a circuit of its own, with hystrix's settings for
// "service.endpoint". All clients of a process share the circuits.
//
// Hystrix measures its sleep window and its last 10 s with the wall clock. After the wall
// clock was set back by an hour, an open circuit would stay open for an hour. So all
// circuits start anew, closed, when the wall clock was set back by more than a second.
func New(plugin client.Wrapper, maxConcurrent int) client.Wrapper {
	return func(c client.Client) client.Client {
		return &admission{Client: plugin(&filter{c}), slots: make(chan struct{}, maxConcurrent)}
	}
}

// admission is the outer layer.
type admission struct {
	client.Client
	slots chan struct{} // holds an element for each call in flight
}

func (a *admission) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		return hystrix.ErrMaxConcurrency
	}
	if wallClock.steppedBack(time.Now()) {
		hystrix.Flush()
	}
	callOpts := a.Options().CallOptions
	for _, o := range opts {
		o(&callOpts)
	}
	ctx, cancel := context.WithTimeout(ctx, callOpts.RequestTimeout)
	defer cancel()

	var uncounted error
	err := a.Client.Call(context.WithValue(ctx, uncountedKey{}, &uncounted), req, rsp, opts...)
	if err != nil {
		return err // do not read uncounted: a call that timed out may still write it
	}
	return uncounted
}

// uncountedKey is the context key of a pointer to the error that hystrix does not see.
type uncountedKey struct{}

// filter is the inner layer.
type filter struct{ client.Client }

func (f *filter) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	if circuits.registered.Load() {
		defer circuits.begin(req.Service() + "." + req.Endpoint())()
	}
	err := f.Client.Call(ctx, req, rsp, opts...)
	if err != nil && !failure.Of(err).OpensCircuit() {
		*ctx.Value(uncountedKey{}).(*error) = err
		return nil
	}
	return err
}
