package calls_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/calls"
)

func TestMakeMakesAllCallsOnce(t *testing.T) {
	seen := map[int]int{}
	calls.Make(context.Background(), calls.Plan{Requests: 1000, Concurrency: 8}, func(context.Context) calls.Result {
		return calls.Result{Answer: "ok"}
	}, func(r calls.Result) { // never two at a time, or the race detector objects
		require.Equal(t, "ok", r.Answer)
		seen[r.Number]++
	})
	require.Len(t, seen, 1000)
	for n := 1; n <= 1000; n++ {
		require.Equal(t, 1, seen[n], "call %d", n)
	}
}

func TestAsManyCallersAsAskedFor(t *testing.T) {
	// Each call waits until all eight are under way.
	var all sync.WaitGroup
	all.Add(8)
	made := 0
	calls.Make(context.Background(), calls.Plan{Requests: 8, Concurrency: 8}, func(context.Context) calls.Result {
		all.Done()
		all.Wait()
		return calls.Result{}
	}, func(calls.Result) { made++ })
	require.Equal(t, 8, made)
}

func TestAnInterruptLetsCallsFinish(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	var began atomic.Int64
	results := 0
	calls.Make(ctx, calls.Plan{Concurrency: 4, Grace: time.Minute}, func(ctx context.Context) calls.Result {
		if err := calls.Begin(ctx); err != nil {
			return calls.Result{Err: err}
		}
		if began.Add(1) == 100 {
			interrupt()
		}
		if err := ctx.Err(); err != nil {
			t.Error(err)
		}
		return calls.Result{}
	}, func(r calls.Result) {
		require.NoError(t, r.Err)
		results++
	})
	require.EqualValues(t, began.Load(), results, "every call that began was reported")
	require.GreaterOrEqual(t, results, 100)
}

func TestAnInterruptLeavesCallsThatWait(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	var waiting atomic.Int64
	// One call goes out and interrupts; the others wait for ever before they do.
	calls.Make(ctx, calls.Plan{Concurrency: 8, Grace: time.Hour}, func(ctx context.Context) calls.Result {
		if waiting.Add(1) < 8 {
			<-release
		}
		if err := calls.Begin(ctx); err != nil {
			return calls.Result{Err: err}
		}
		interrupt()
		return calls.Result{}
	}, func(calls.Result) {})
}

func TestAnInterruptWaitsNoLongerThanItsGrace(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	left := calls.Make(ctx, calls.Plan{Concurrency: 2, Grace: time.Millisecond}, func(ctx context.Context) calls.Result {
		if err := calls.Begin(ctx); err != nil {
			return calls.Result{Err: err}
		}
		interrupt()
		<-release
		return calls.Result{}
	}, func(calls.Result) { t.Error("no call was finished") })
	require.GreaterOrEqual(t, left, 1)
}
