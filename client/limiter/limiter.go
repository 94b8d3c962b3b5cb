// Package limiter limits the rate of a client's calls with go-plugins' wrapper of uber's limiter.
// It changes the limiter in two ways: a call stops waiting when its context ends, and there is no
// burst of calls after idle time.
package limiter

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/micro/go-micro/client"
	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"go.uber.org/ratelimit"
)

// New returns a wrapper that sends at most perSecond calls per second, of all callers together. If
// perSecond is 0, there is no limit. The first call is sent at once. Later turns are at least 1 s /
// perSecond apart, and calls wait for their turn in the order of their arrival. There is no limit
// to this wait except the context. New disables the slack of uber's limiter. By default, this slack
// allows a burst of up to 11 calls after idle time.
//
// ctx is the context of the program. If ctx or the call's own context ends before the call's turn,
// the call is not sent. If the call's deadline is before its turn, the call fails at once, and
// takes no turn. The error wraps context.Canceled or context.DeadlineExceeded.
//
// New's wrapper calls observe with the waiting time of each call that took a turn, even if the call
// was not sent in the end. observe may be nil.
func New(ctx context.Context, perSecond int, observe func(wait time.Duration)) client.Wrapper {
	if perSecond == 0 {
		return func(c client.Client) client.Client { return c }
	}
	return func(c client.Client) client.Client {
		turns := &turns{interval: time.Second / time.Duration(perSecond)}
		turns.plugin = rateplugin.NewClientWrapper(perSecond, ratelimit.WithoutSlack, ratelimit.WithClock(turns))(nullClient{c})
		return &limiter{Client: c, ctx: ctx, turns: turns, observe: observe}
	}
}

type limiter struct {
	client.Client
	ctx     context.Context
	turns   *turns
	observe func(time.Duration) // may be nil
}

func (l *limiter) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	if err := l.wait(ctx); err != nil {
		return fmt.Errorf("waiting for the rate limiter: %w", err)
	}
	return l.Client.Call(ctx, req, rsp, opts...)
}

// wait blocks until the call's turn. It returns an error if the call must not be sent.
func (l *limiter) wait(ctx context.Context) error {
	d, err := l.turns.take(ctx)
	if err != nil {
		return err
	}
	if l.observe != nil {
		start := time.Now()
		defer func() { l.observe(time.Since(start)) }()
	}
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.ctx.Err()
}

// epoch is the base of the times that uber's limiter gets from its clock. Each time is epoch plus
// the time since epoch by the monotonic clock. By default, uber's limiter compares wall clock
// times. If the wall clock were set back by an hour, no call would get a turn for an hour.
var epoch = time.Now()

// turns gives each call its turn. uber's limiter waits for a turn with the Sleep method of its
// clock. turns is this clock. Its Sleep stores the duration and returns at once, and take returns
// the duration. So no caller sleeps while it holds the mutex.
type turns struct {
	interval time.Duration
	plugin   client.Client

	mu   sync.Mutex
	now  time.Time     // the current time, for the current call of take
	wait time.Duration // how long uber's limiter wants to sleep in the current call of take
	last time.Time     // the time of the latest turn that a call took
}

// take takes the next turn and returns the time to wait for it. It returns an error and takes no
// turn if ctx has ended or if the deadline of ctx is before the turn.
func (t *turns) take(ctx context.Context) (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	t.now, t.wait = epoch.Add(time.Since(epoch)), 0
	if deadline, ok := ctx.Deadline(); ok && t.last.Add(t.interval).After(deadline) {
		return 0, fmt.Errorf("the turn of this call is after its deadline: %w", context.DeadlineExceeded)
	}
	if err := t.plugin.Call(ctx, nil, nil); err != nil {
		return 0, err
	}
	t.last = t.now.Add(t.wait)
	return t.wait, nil
}

// Now implements ratelimit.Clock.
func (t *turns) Now() time.Time { return t.now }

// Sleep implements ratelimit.Clock.
func (t *turns) Sleep(d time.Duration) { t.wait = d }

// nullClient is the client that the plugin wraps. Its Call does nothing: the limiter itself sends
// the call when the turn comes.
type nullClient struct{ client.Client }

func (nullClient) Call(context.Context, client.Request, any, ...client.CallOption) error { return nil }
