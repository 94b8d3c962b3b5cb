// Package breaker provides a circuit breaker for calls. It puts go-plugins' hystrix wrapper between
// two layers. Together, the layers have three effects. Only failures of the service open a circuit.
// A call's own timeout applies in addition to hystrix's timeout. If a call times out in hystrix, it
// is canceled.
package breaker

import (
	"context"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/client/failure"
)

// Headroom is the number to add to New's maxConcurrent. Use the sum as hystrix's own
// MaxConcurrentRequests, so that hystrix itself rejects no calls. Hystrix still counts a call as in
// flight for a moment after the call's response. Headroom is larger than the number of calls that
// end during this moment.
const Headroom = 1000

// New returns a wrapper that puts plugin between an outer and an inner layer. plugin is
// go-plugins' hystrix wrapper.
//
// The outer layer allows up to maxConcurrent calls in flight; maxConcurrent must be 1 or more. It
// rejects further calls with hystrix.ErrMaxConcurrency. If hystrix itself rejected these calls, it
// would count the rejections as failures.
//
// The outer layer also limits the call's context to the request timeout. The request timeout is set
// in the call's options, or else in the client's options. If the context already has an earlier
// deadline, the earlier deadline applies. When hystrix returns, the outer layer cancels the
// context. Otherwise, a call that timed out in hystrix would continue, also on the server. The
// server gets the request timeout as the call's deadline. Hystrix's timeout reaches the server only
// as a cancellation.
//
// The inner layer reports an error to hystrix only if OpensCircuit is true for the error's
// failure.Outcome. The caller gets all errors. Hystrix runs the inner layer in its own goroutine
// for each call.
//
// Each endpoint of a service has its own circuit, with hystrix's settings for "service.endpoint".
// All clients of a process share the circuits. Hystrix decides whether to open a circuit when the
// circuit's state is read: at the next call, or when Collector's metrics are collected. The sleep
// window starts at this moment. After the sleep window, hystrix lets one trial call through, and
// the window starts again. Any success closes the circuit and clears its counts. This may also be
// the success of a call that began before the circuit opened, or an error that the inner layer does
// not report.
//
// Hystrix uses the wall clock for its sleep window, and for the 10 s over which it counts failures.
// If the wall clock is set back by an hour, an open circuit stays open for an hour longer. So when
// the wall clock is set back by more than 1 s, the next call replaces all circuits with new, closed
// circuits.
func New(plugin client.Wrapper, maxConcurrent int) client.Wrapper {
	return func(c client.Client) client.Client {
		return &admission{Client: plugin(&filter{c}), slots: make(chan struct{}, maxConcurrent)}
	}
}

// admission is the outer layer.
type admission struct {
	client.Client
	slots chan struct{} // holds one element for each call in flight
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

	hidden := new(hiddenError)
	err := a.Client.Call(context.WithValue(ctx, hiddenKey{}, hidden), req, rsp, opts...)
	if err != nil {
		return err // do not read hidden: a call that timed out may still write to hidden
	}
	return hidden.err
}

// hiddenError holds the error of a call if hystrix must not count this error. The inner layer sets
// err, and returns nil to hystrix.
type hiddenError struct{ err error }

// hiddenKey is the context key of a call's *hiddenError.
type hiddenKey struct{}

// filter is the inner layer.
type filter struct{ client.Client }

func (f *filter) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	if circuits.registered.Load() {
		defer circuits.begin(req.Service() + "." + req.Endpoint())()
	}
	err := f.Client.Call(ctx, req, rsp, opts...)
	if err != nil && !failure.Of(err).OpensCircuit() {
		ctx.Value(hiddenKey{}).(*hiddenError).err = err
		return nil
	}
	return err
}
