// Package calls makes many calls from several callers at once.
package calls

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Result is what came of one call.
type Result struct {
	Number  int           // 1 for the first that was started
	Answer  string        // empty if it failed
	Err     error         // nil if it did not
	Start   time.Time     // when the caller began
	Latency time.Duration // from start to outcome
	Waited  time.Duration // of that, until it was sent to the node: for the limiter, and for earlier attempts
	Node    string        // host:port of the node that was called last; empty if none was
	Trace   string        // the trace's ID; empty if it is not traced
}

// Plan says which calls to make.
type Plan struct {
	Requests    int           // how many; 0 is until interrupted
	Concurrency int           // how many callers share them
	Grace       time.Duration // how long calls under way may take after an interrupt
}

// ErrInterrupted is the error of a call that was not made because of an
// interrupt.
var ErrInterrupted = errors.New("interrupted")

// gate is what calls pass when they go out.
type gate struct {
	interrupted <-chan struct{}
	mu          sync.Mutex
	passed      int // calls that went out
}

// pass lets a call out unless there was an interrupt.
func (g *gate) pass() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.interrupted:
		return ErrInterrupted
	default:
		g.passed++
		return nil
	}
}

// count returns how many calls went out, for good after an interrupt.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

type gateKey struct{}

// Begin is called when a call goes out, with the context that Make gave it and
// after all that it had to wait for. After an interrupt it returns
// ErrInterrupted, which then has to be the call's result.
func Begin(ctx context.Context) error {
	if g, ok := ctx.Value(gateKey{}).(*gate); ok {
		return g.pass()
	}
	return nil
}

// Make calls do as plan says and hands each result to report, one at a time, as
// they come. When ctx is done no more calls begin, and those that have begun may
// take plan.Grace. It returns how many of those it did not wait for.
//
// The context that do gets outlives ctx, so that an interrupt does not fail
// calls. Make sets each result's number.
func Make(ctx context.Context, plan Plan, do func(context.Context) Result, report func(Result)) (left int) {
	var (
		started  atomic.Int64
		callers  sync.WaitGroup
		results  = make(chan Result)
		over     = make(chan struct{}) // closed when nobody reads results any more
		out      = &gate{interrupted: ctx.Done()}
		reported = 0
	)
	defer close(over)
	n := plan.Concurrency
	if plan.Requests > 0 {
		n = min(n, plan.Requests)
	}
	callCtx := context.WithValue(context.WithoutCancel(ctx), gateKey{}, out)
	for range n {
		callers.Go(func() {
			for ctx.Err() == nil {
				number := int(started.Add(1))
				if plan.Requests > 0 && number > plan.Requests {
					return
				}
				r := do(callCtx)
				if errors.Is(r.Err, ErrInterrupted) {
					return
				}
				r.Number = number
				select {
				case results <- r:
				case <-over:
					return
				}
			}
		})
	}
	go func() {
		callers.Wait()
		close(results)
	}()

	done := ctx.Done()
	var giveUp <-chan time.Time // set once interrupted
	for giveUp == nil || reported < out.count() {
		select {
		case r, ok := <-results:
			if !ok {
				return 0
			}
			report(r)
			reported++
		case <-done:
			done = nil
			giveUp = time.After(plan.Grace)
		case <-giveUp:
			return out.count() - reported
		}
	}
	return 0
}
