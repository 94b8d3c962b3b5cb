package breaker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/stretchr/testify/require"
)

func TestStepsOfTheWallClock(t *testing.T) {
	d := &stepDetector{epoch: time.Now()}
	require.False(t, d.steppedBack(time.Now()))
	require.False(t, d.moved(int64(time.Hour)), "set forward")
	require.False(t, d.moved(int64(time.Hour-maxStepBack)), "set back by maxStepBack")
	require.True(t, d.moved(int64(time.Hour-maxStepBack-1)), "small steps add up")
	require.False(t, d.moved(int64(time.Hour-maxStepBack-1)), "the same step")
	require.True(t, d.steppedBack(time.Now()), "set back to the real time")
	require.False(t, d.steppedBack(time.Now()))
}

// failing is a client whose calls fail.
type failing struct {
	client.Client
	calls int
}

func (f *failing) Call(context.Context, client.Request, any, ...client.CallOption) error {
	f.calls++
	return errors.New("oops")
}

func (*failing) Options() client.Options {
	return client.Options{CallOptions: client.CallOptions{RequestTimeout: time.Minute}}
}

func TestNoCircuitStaysOpenWhenTheWallClockIsSetBack(t *testing.T) {
	hystrix.Flush()
	defer hystrix.Flush()
	hour := int(time.Hour / time.Millisecond)
	req := client.NewRequest(t.Name(), "Basis.Hello", nil)
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", hystrix.CommandConfig{
		Timeout: hour, SleepWindow: hour, ErrorPercentThreshold: 10, MaxConcurrentRequests: 1 + Headroom, RequestVolumeThreshold: 1,
	})
	f := &failing{}
	c := New(hystrixplugin.NewClientWrapper(), 1)(f)
	call := func() error { return c.Call(context.Background(), req, nil) }
	require.Eventually(t, func() bool { return call() == hystrix.ErrCircuitOpen }, time.Minute, time.Millisecond)

	before := f.calls
	wallClock.ahead.Add(int64(time.Hour)) // as if the wall clock had been an hour ahead until now
	require.EqualError(t, call(), "oops")
	require.Equal(t, before+1, f.calls)
}
