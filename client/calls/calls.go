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
	Number  int    // 1 for the first that a caller took up
	Answer  string // empty if it failed
	Err     error
	Start   time.Time     // when the caller began
	Latency time.Duration // from start to outcome
	Waited  time.Duration // of that, for the limiter and for earlier attempts
	Node    string        // host:port of the last that was called, if one was
	Trace   string        // ID, if it is traced
}

// Plan says which calls to make.
type Plan struct {
	Requests    int           // how many; 0 is until interrupted
	Concurrency int           // how many callers share them
	Grace       time.Duration // how long calls under way may take after an interrupt
}

// ErrInterrupted is the error of a call that an interrupt kept from going out.
var ErrInterrupted = errors.New("interrupted")

// gate counts the calls that went out, and stays shut after an interrupt.
type gate struct {
	interrupted <-chan struct{}
	mu          sync.Mutex
	passed      int
}

// count returns how many calls went out: after an interrupt, for good.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

type gateKey struct{}

// Begin is for a call to ask, with the context that Make gave it, when it has waited
// for all that it has to and goes out. An ErrInterrupted has to be its result.
func Begin(ctx context.Context) error {
	g, ok := ctx.Value(gateKey{}).(*gate)
	if !ok {
		return nil
	}
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

// Make makes calls by do, which has to call Begin, as plan says, and hands each result,
// with its number, to report, one at a time. When ctx is done no more calls begin, and
// those that have begun may take plan.Grace. It returns how many of those it did not
// wait for.
//
// The context that do gets outlives ctx: an interrupt fails no call.
func Make(ctx context.Context, plan Plan, do func(context.Context) Result, report func(Result)) (left int) {
	var (
		out     = &gate{interrupted: ctx.Done()}
		callCtx = context.WithValue(context.WithoutCancel(ctx), gateKey{}, out)
		started atomic.Int64
		callers sync.WaitGroup
		results = make(chan Result)
		over    = make(chan struct{}) // closed when nobody reads results any more
	)
	defer close(over)
	for range plan.Concurrency {
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

	interrupted := ctx.Done()
	var giveUp <-chan time.Time // set once interrupted
	for reported := 0; giveUp == nil || reported < out.count(); {
		select {
		case r, ok := <-results:
			if !ok {
				return 0
			}
			report(r)
			reported++
		case <-interrupted:
			interrupted = nil
			giveUp = time.After(plan.Grace)
		case <-giveUp:
			return out.count() - reported
		}
	}
	return 0
}
