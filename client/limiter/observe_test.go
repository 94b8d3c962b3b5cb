package limiter

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWaitsAreObserved(t *testing.T) {
	var (
		mu    sync.Mutex
		waits []time.Duration
	)
	c := New(context.Background(), 20, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, d)
	})(&fake{call: func() {}})
	call := func(ctx context.Context) error { return c.Call(ctx, nil, nil) }
	require.NoError(t, call(context.Background()))
	require.NoError(t, call(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	require.ErrorIs(t, call(ctx), context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, call(ctx), context.DeadlineExceeded) // the call takes no turn and does not wait

	require.Len(t, waits, 3)
	require.Less(t, waits[0], 20*time.Millisecond)
	require.GreaterOrEqual(t, waits[1], 30*time.Millisecond)
	require.Less(t, waits[2], 45*time.Millisecond)
}
