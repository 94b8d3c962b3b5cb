package limiter

import (
	"context"
	"testing"
	"time"

	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"github.com/stretchr/testify/require"
	"go.uber.org/ratelimit"
)

// By default, uber's limiter has slack: it allows a burst of calls after idle time. At one call per
// second, it sends 11 calls at once after a minute without calls. New disables the slack.
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

// fakeClock is a clock whose time the test sets. Its Sleep does not sleep, but adds up the
// durations.
type fakeClock struct {
	now   time.Time
	slept time.Duration
}

func (c *fakeClock) Now() time.Time        { return c.now }
func (c *fakeClock) Sleep(d time.Duration) { c.slept += d }
