// Package load makes many calls from several concurrent callers, and reports the results.
package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Result is the result of one call.
type Result struct {
	Number  int    // 1 for the call that started first
	Answer  string // empty if the call failed
	Err     error
	Start   time.Time     // when the caller started the call
	Latency time.Duration // from Start to the result
	Waited  time.Duration // the part of Latency before the last attempt: waiting for the limiter, and earlier attempts
	Node    string        // host:port of the last attempt; empty if there was no attempt
	Trace   string        // ID of the trace, or Unsampled; empty without a tracer
}

// Plan describes the calls to make.
type Plan struct {
	Requests    int           // number of calls; 0 means no limit
	Concurrency int           // number of callers, which share the calls
	Grace       time.Duration // how long to wait for calls in flight after an interrupt
}

// Run makes the calls of plan with the function call. It passes each result to the function report,
// one at a time. Run returns 0 when all calls have ended.
//
// When ctx ends, Run is interrupted. It then starts no more calls, and waits up to plan.Grace for
// the calls in flight. Run returns the number of calls that are still in flight after plan.Grace.
// The results of these calls are lost.
//
// A call in flight does not fail because of an interrupt: the call's context does not end with ctx.
// If the function call has not sent its request when ctx ends, it must not send the request, and
// must return an error that wraps context.Canceled. So it must watch ctx, in addition to its own
// context. Run does not report such a call.
func Run(ctx context.Context, plan Plan, call func(context.Context) Result, report func(Result)) (inFlight int) {
	var (
		callCtx = context.WithoutCancel(ctx)
		started atomic.Int64 // number of calls; at the end, each caller may add 1 without a call
		unsent  atomic.Int64 // number of calls that were not sent because of an interrupt
		callers sync.WaitGroup
		results = make(chan Result)
		left    = make(chan struct{}) // closed when Run returns
	)
	defer close(left)
	for range plan.Concurrency {
		callers.Go(func() {
			for ctx.Err() == nil {
				number := int(started.Add(1))
				if plan.Requests > 0 && number > plan.Requests {
					return
				}
				r := call(callCtx)
				r.Number = number
				if ctx.Err() != nil && errors.Is(r.Err, context.Canceled) {
					unsent.Add(1)
					return
				}
				select {
				case results <- r:
				case <-left:
					return
				}
			}
		})
	}
	go func() {
		callers.Wait()
		close(results)
	}()

	reported := 0
	interrupted := ctx.Done()
	var graceOver <-chan time.Time // nil until an interrupt
	for {
		select {
		case r, ok := <-results:
			if !ok {
				return 0
			}
			report(r)
			reported++
		case <-interrupted:
			interrupted, graceOver = nil, time.After(plan.Grace)
		case <-graceOver:
			for { // report the results that are ready
				select {
				case r, ok := <-results:
					if !ok {
						return 0
					}
					report(r)
					reported++
				default:
					calls := int(started.Load())
					if plan.Requests > 0 {
						calls = min(calls, plan.Requests)
					}
					return calls - reported - int(unsent.Load())
				}
			}
		}
	}
}
