// Package limiter limits the rate of a client's calls with go-plugins' wrapper of
// uber's limiter. It adds what that wrapper lacks: a call stops waiting when its
// context ends, and idle time earns no burst.
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

// New returns a wrapper that lets perSecond calls a second through, of all callers
// together; 0 is no limit. Calls beyond the rate wait for their turn, in the order of
// their arrival. There is no slack: uber's limiter by default makes up for idle time
// with a burst of up to 10 calls.
//
// A call is not sent if its context, or ctx, ends before its turn. A call whose
// deadline is before its turn fails at once, and takes no turn. The error wraps
// context.Canceled or context.DeadlineExceeded. ctx is the program's own: once it ends,
// no waiting call is sent any more.
//
// observe is called with how long each call waited that had a turn, sent or not. A nil
// observe is not called.
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

// wait blocks until it is the call's turn.
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

// epoch is where the limiter's times start. uber's limiter compares wall clock times, and
// after a wall clock was set back by an hour no call would have a turn for an hour. So the
// limiter gets times that advance with the monotonic clock.
var epoch = time.Now()

// turns hands out turns. uber's limiter knows when each turn is, but tells only by
// sleeping until then, on a clock that can be chosen. turns is that clock, and takes
// the length of the sleep as the answer. So no caller sleeps with the mutex held.
type turns struct {
	interval time.Duration
	plugin   client.Client

	mu   sync.Mutex
	now  time.Time     // of the take that is in progress
	wait time.Duration // that the limiter asked for in that take
	last time.Time     // the latest turn that was taken
}

// take takes the next turn and returns how long to wait for it.
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

// nullClient ends the plugin's call once its turn is known.
type nullClient struct{ client.Client }

func (nullClient) Call(context.Context, client.Request, any, ...client.CallOption) error { return nil }
