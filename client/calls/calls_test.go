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
	var started atomic.Int64
	results := 0
	calls.Make(ctx, calls.Plan{Concurrency: 4, Grace: time.Minute}, func(ctx context.Context) calls.Result {
		if started.Add(1) == 100 {
			interrupt()
		}
		require.NoError(t, ctx.Err())
		return calls.Result{}
	}, func(calls.Result) { results++ })
	require.EqualValues(t, started.Load(), results, "every call that was started was reported")
	require.GreaterOrEqual(t, results, 100)
}

func TestAnInterruptWaitsNoLongerThanItsGrace(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	calls.Make(ctx, calls.Plan{Concurrency: 2, Grace: time.Millisecond}, func(context.Context) calls.Result {
		interrupt()
		<-release
		return calls.Result{}
	}, func(calls.Result) { t.Error("no call was finished") })
}
