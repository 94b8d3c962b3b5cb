// Package calls makes many calls from several callers at once.
package calls

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Result is what came of one call.
type Result struct {
	Number  int           // 1 for the first that was started
	Answer  string        // empty if it failed
	Err     error         // nil if it did not
	Latency time.Duration // from start to outcome, waiting for the limiter included
	Node    string        // host:port of the node that was called last; empty if none was
	Trace   string        // the trace's ID; empty if it is not traced
}

// Plan says which calls to make.
type Plan struct {
	Requests    int           // how many; 0 is until interrupted
	Concurrency int           // how many callers share them
	Grace       time.Duration // how long calls under way may take after an interrupt
}

// Make calls do as plan says and hands each result to report, one at a time, as
// they come. When ctx is done it starts no more calls, waits for those under
// way for at most plan.Grace, and leaves the rest, which wait for the limiter.
//
// The context that do gets outlives ctx, so that an interrupt does not fail
// calls. Make sets each result's number.
func Make(ctx context.Context, plan Plan, do func(context.Context) Result, report func(Result)) {
	var (
		started atomic.Int64
		callers sync.WaitGroup
		results = make(chan Result)
		left    = make(chan struct{}) // closed when nobody reads results any more
	)
	defer close(left)
	for range plan.Concurrency {
		callers.Go(func() {
			for ctx.Err() == nil {
				n := int(started.Add(1))
				if plan.Requests > 0 && n > plan.Requests {
					return
				}
				r := do(context.WithoutCancel(ctx))
				r.Number = n
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

	interrupted := ctx.Done()
	var giveUp <-chan time.Time
	for {
		select {
		case r, ok := <-results:
			if !ok {
				return
			}
			report(r)
		case <-interrupted:
			interrupted = nil
			giveUp = time.After(plan.Grace)
		case <-giveUp:
			return
		}
	}
}
