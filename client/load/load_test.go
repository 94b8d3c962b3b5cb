package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachCallIsMadeOnce(t *testing.T) {
	seen := map[int]int{}
	Run(context.Background(), Plan{Requests: 1000, Concurrency: 8}, func(context.Context) Result {
		return Result{Answer: "ok"}
	}, func(r Result) { // never runs twice at the same time; otherwise the race detector reports a race
		require.Equal(t, "ok", r.Answer)
		seen[r.Number]++
	})
	require.Len(t, seen, 1000)
	for n := 1; n <= 1000; n++ {
		require.Equal(t, 1, seen[n], "call %d", n)
	}
}

func TestThereAreAsManyCallersAsPlanned(t *testing.T) {
	// Each call waits until all eight are in flight.
	var all sync.WaitGroup
	all.Add(8)
	made := 0
	Run(context.Background(), Plan{Requests: 8, Concurrency: 8}, func(context.Context) Result {
		all.Done()
		all.Wait()
		return Result{}
	}, func(Result) { made++ })
	require.Equal(t, 8, made)
}

func TestAnInterruptLetsCallsInFlightFinish(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	var began atomic.Int64
	results := 0
	inFlight := Run(ctx, Plan{Concurrency: 4, Grace: time.Minute}, func(ctx context.Context) Result {
		if began.Add(1) == 100 {
			interrupt()
		}
		if err := ctx.Err(); err != nil {
			t.Error(err)
		}
		return Result{}
	}, func(r Result) {
		require.NoError(t, r.Err)
		results++
	})
	require.Zero(t, inFlight)
	require.EqualValues(t, began.Load(), results, "every call that began was reported")
	require.GreaterOrEqual(t, results, 100)
}

func TestCallsThatAnInterruptKeptFromBeingSentAreNotReported(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	var waiting atomic.Int64
	sent := 0
	inFlight := Run(ctx, Plan{Concurrency: 8, Grace: time.Hour}, func(context.Context) Result {
		if waiting.Add(1) < 8 {
			<-ctx.Done() // as the limiter does
			return Result{Err: fmt.Errorf("waiting: %w", ctx.Err())}
		}
		interrupt()
		return Result{}
	}, func(r Result) {
		require.NoError(t, r.Err)
		sent++
	})
	require.Zero(t, inFlight)
	require.Equal(t, 1, sent)
}

func TestAnInterruptWaitsNoLongerThanTheGrace(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	inFlight := Run(ctx, Plan{Concurrency: 2, Grace: time.Millisecond}, func(context.Context) Result {
		interrupt()
		<-release
		return Result{}
	}, func(Result) { t.Error("no call was finished") })
	require.GreaterOrEqual(t, inFlight, 1)
	require.LessOrEqual(t, inFlight, 2)
}

func TestAResultThatIsReadyWhenTheGraceEndsCounts(t *testing.T) {
	for range 100 {
		ctx, interrupt := context.WithCancel(context.Background())
		reported := 0
		inFlight := Run(ctx, Plan{Requests: 2, Concurrency: 2, Grace: time.Nanosecond}, func(context.Context) Result {
			interrupt()
			return Result{}
		}, func(Result) { reported++ })
		require.LessOrEqual(t, inFlight+reported, 2)
		require.GreaterOrEqual(t, inFlight, 0)
	}
}
