package limiter

import (
	"context"
	"testing"
	"time"

	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"github.com/stretchr/testify/require"
	"go.uber.org/ratelimit"
)

// What uber's limiter does by itself, which New mends: it makes up for idle time
// with a burst. After a minute in which nobody called, 11 calls at one a second go
// at once.
func TestStockLimiterHasSlack(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	c := rateplugin.NewClientWrapper(1, ratelimit.WithClock(clock))(&fake{call: func() {}})
	call := func() { require.NoError(t, c.Call(context.Background(), nil, nil)) }
	call()
	clock.now = clock.now.Add(time.Minute)
	for range 11 {
		call()
	}
	require.Zero(t, clock.slept)
	call()
	require.Equal(t, time.Second, clock.slept)
}

// fakeClock is a clock of which a test says what time it is.
type fakeClock struct {
	now   time.Time
	slept time.Duration
}

func (c *fakeClock) Now() time.Time        { return c.now }
func (c *fakeClock) Sleep(d time.Duration) { c.slept += d }
