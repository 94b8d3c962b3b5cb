package limiter

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// After idle time, callers cannot make a burst of calls.
func TestNoSlack(t *testing.T) {
	c := New(context.Background(), 20, nil)(&fake{call: func() {}})
	call := func() { require.NoError(t, c.Call(context.Background(), nil, nil)) }
	call()
	<-time.After(300 * time.Millisecond) // idle time, long enough for six calls
	start := time.Now()
	for range 4 {
		call()
	}
	// The first call is sent at once. Each further call is sent 1/20 s after the previous call.
	require.GreaterOrEqual(t, time.Since(start), 3*time.Second/20)
}

func TestCallersShareTheRate(t *testing.T) {
	c := New(context.Background(), 100, nil)(&fake{call: func() {}})
	start := time.Now()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 5 {
				if err := c.Call(context.Background(), nil, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	require.GreaterOrEqual(t, time.Since(start), 39*time.Second/100)
}

func TestZeroIsNoLimit(t *testing.T) {
	n := 0
	c := New(context.Background(), 0, nil)(&fake{call: func() { n++ }})
	for range 1000 {
		require.NoError(t, c.Call(context.Background(), nil, nil))
	}
	require.Equal(t, 1000, n)
}

// waitAll starts 30 callers. The last of their turns is about half a minute away. While the callers
// wait, waitAll runs the function end. It returns the errors of the callers.
func waitAll(t *testing.T, c client.Client, ctx context.Context, end func()) []error {
	t.Helper()
	errs := make(chan error, 30)
	for range cap(errs) {
		go func() { errs <- c.Call(ctx, nil, nil) }()
	}
	turns := c.(*limiter).turns
	require.Eventually(t, func() bool {
		turns.mu.Lock()
		defer turns.mu.Unlock()
		return time.Until(turns.last) > 20*time.Second
	}, time.Minute, time.Millisecond)
	end()
	ended := time.Now()
	var all []error
	for range cap(errs) {
		if err := <-errs; err != nil { // nil if the call's turn came before end ran
			all = append(all, err)
		}
	}
	require.Less(t, time.Since(ended), 10*time.Second, "the callers still wait")
	return all
}

func TestTheWaitEndsWithTheCaller(t *testing.T) {
	var sent atomic.Int64
	c := New(context.Background(), 1, nil)(&fake{call: func() { sent.Add(1) }})
	ctx, cancel := context.WithCancel(context.Background())
	errs := waitAll(t, c, ctx, cancel)
	require.GreaterOrEqual(t, len(errs), 20)
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.EqualValues(t, 30-len(errs), sent.Load())
}

func TestTheWaitEndsWithTheProgram(t *testing.T) {
	var sent atomic.Int64
	ctx, interrupt := context.WithCancel(context.Background())
	c := New(ctx, 1, nil)(&fake{call: func() { sent.Add(1) }})
	errs := waitAll(t, c, context.Background(), interrupt)
	require.GreaterOrEqual(t, len(errs), 20)
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.EqualValues(t, 30-len(errs), sent.Load())
}

func TestACallThatCannotGetItsTurnFailsAtOnceAndTakesNone(t *testing.T) {
	c := New(context.Background(), 1, nil)(&fake{call: func() {}})
	require.NoError(t, c.Call(context.Background(), nil, nil))
	for range 1000 { // if these calls took turns, the next turn would come in a quarter of an hour
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		err := c.Call(ctx, nil, nil)
		cancel()
		if err == nil {
			return // on a busy machine, a second has passed and the next turn has come
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	start := time.Now()
	require.NoError(t, c.Call(context.Background(), nil, nil))
	require.Less(t, time.Since(start), 10*time.Second, "the failed calls took turns")
}

// fake is a client whose calls run a function of the test.
type fake struct {
	client.Client
	call func()
}

func (f *fake) Call(context.Context, client.Request, any, ...client.CallOption) error {
	f.call()
	return nil
}
