// Package load makes many calls from several callers at once, and reports them.
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
	Waited  time.Duration // the part of Latency before the last attempt: the limiter's wait, earlier attempts
	Node    string        // host:port of the last attempt; empty if there was none
	Trace   string        // ID of the trace, or Unsampled; empty without a tracer
}

// Plan says which calls to make.
type Plan struct {
	Requests    int           // how many calls; 0 is no end
	Concurrency int           // how many callers share them
	Grace       time.Duration // how long calls in flight may take after an interrupt
}

// Run makes the calls of plan with call, and passes each result to report, one at a
// time. It returns when all calls are made, or after an interrupt, which is the end of
// ctx: then no call starts any more, and calls in flight may take plan.Grace. Run returns
// the number of calls still in flight, whose results are lost.
//
// The context of a call does not end with ctx, so that an interrupt fails no call in
// flight. A call that was waiting to be sent has to end on an interrupt by itself, with
// an error that wraps context.Canceled. Run does not report such a call.
func Run(ctx context.Context, plan Plan, call func(context.Context) Result, report func(Result)) (inFlight int) {
	var (
		callCtx = context.WithoutCancel(ctx)
		started atomic.Int64 // calls, and at most one number beyond the plan per caller
		unsent  atomic.Int64 // calls that an interrupt kept from being sent
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
			for { // the results that are ready
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
