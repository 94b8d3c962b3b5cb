package breaker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/stretchr/testify/require"
)

// The tests in this file show what hystrix and its plugin do without this package. New fixes this
// behavior or relies on it.

// stock returns a function that makes a call through the plugin alone. It also returns the call's
// circuit.
func stock(t *testing.T, cfg hystrix.CommandConfig, call func(context.Context) error) (func() error, *hystrix.CircuitBreaker) {
	t.Helper()
	hystrix.Flush() // removes the circuits of an earlier run of the same test
	req := client.NewRequest(t.Name(), "Basis.Hello", nil)
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", cfg)
	circuit, _, err := hystrix.GetCircuit(t.Name() + ".Basis.Hello")
	require.NoError(t, err)
	c := hystrixplugin.NewClientWrapper()(&fake{call: call})
	return func() error { return c.Call(context.Background(), req, nil) }, circuit
}

// touchyWith returns touchy with another limit on calls in flight.
func touchyWith(maxConcurrent int) hystrix.CommandConfig {
	cfg := touchy
	cfg.MaxConcurrentRequests = maxConcurrent
	return cfg
}

// MaxConcurrentRequests limits the calls in flight, and not the calls per second.
func TestStockMaxConcurrentIsNotPerSecond(t *testing.T) {
	call, _ := stock(t, touchyWith(1000), func(context.Context) error { return nil })
	start := time.Now()
	for range 10_000 {
		require.NoError(t, call())
	}
	require.Less(t, time.Since(start), 9*time.Second) // a limit of 1000 calls per second would take 9 s
}

// Hystrix rejects calls beyond MaxConcurrentRequests, and counts these rejections as failures.
func TestStockRefusalsOpenTheCircuit(t *testing.T) {
	const max = 2
	var inFlight, callers sync.WaitGroup
	release := make(chan struct{})
	inFlight.Add(max)
	call, circuit := stock(t, touchyWith(max), func(context.Context) error {
		inFlight.Done()
		<-release
		return nil
	})
	for range max {
		callers.Go(func() { _ = call() })
	}
	inFlight.Wait()
	require.Equal(t, hystrix.ErrMaxConcurrency, call())
	require.Eventually(t, circuit.IsOpen, 10*time.Second, time.Millisecond)
	close(release)
	callers.Wait()
}

// The plugin counts client errors (4xx) as failures.
func TestStockCallersFaultsOpenTheCircuit(t *testing.T) {
	call, circuit := stock(t, touchy, func(context.Context) error {
		return errors.BadRequest("go.micro.srv.basis", "name is empty")
	})
	require.Error(t, call())
	require.Eventually(t, circuit.IsOpen, 10*time.Second, time.Millisecond)
}

// The plugin does not cancel a call that timed out.
func TestStockTimeoutLeavesTheCallRunning(t *testing.T) {
	cfg := touchy
	cfg.Timeout = 10
	begun, release, ended := make(chan context.Context, 1), make(chan struct{}), make(chan struct{})
	call, _ := stock(t, cfg, func(ctx context.Context) error {
		begun <- ctx
		<-release
		close(ended)
		return nil
	})
	require.Equal(t, hystrix.ErrTimeout, call())
	ctx := <-begun
	require.NoError(t, ctx.Err())
	_, hasDeadline := ctx.Deadline()
	require.False(t, hasDeadline)
	close(release)
	<-ended
}

// The circuit opens when the percentage of failures is ErrorPercentThreshold or more. It does not
// open before RequestVolumeThreshold calls have ended.
func TestStockThresholds(t *testing.T) {
	for _, test := range []struct {
		name           string
		good, bad      int
		percent, calls int
		opens          bool
	}{
		{"at the percentage", 9, 1, 10, 10, true},
		{"below it", 10, 1, 10, 11, false},
		{"too few calls", 0, 9, 10, 10, false},
		{"just enough", 0, 10, 10, 10, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := touchy
			cfg.ErrorPercentThreshold, cfg.RequestVolumeThreshold = test.percent, test.calls
			var err error
			call, circuit := stock(t, cfg, func(context.Context) error { return err })
			for range test.good {
				require.NoError(t, call())
			}
			err = errors.InternalServerError("go.micro.srv.basis", "oops")
			for range test.bad {
				require.Equal(t, err, call())
			}
			if test.opens {
				require.Eventually(t, circuit.IsOpen, 5*time.Second, time.Millisecond)
			} else {
				require.Never(t, circuit.IsOpen, 200*time.Millisecond, 10*time.Millisecond)
			}
		})
	}
}

// A rejected caller gets hystrix's own error. This error is not a go-micro error with a code.
func TestStockRefusalIsNoServiceUnavailable(t *testing.T) {
	call, circuit := stock(t, touchy, func(context.Context) error { return errors.InternalServerError("go.micro.srv.basis", "oops") })
	require.Error(t, call())
	require.Eventually(t, circuit.IsOpen, 10*time.Second, time.Millisecond)
	err := call()
	require.EqualError(t, err, "hystrix: circuit open")
	require.Zero(t, errors.Parse(err.Error()).Code)
}
