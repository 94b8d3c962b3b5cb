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

// What hystrix and its plugin do by themselves, which New mends or relies on.

// stock returns a function that makes a call through the plugin alone, and the
// call's circuit.
func stock(t *testing.T, cfg hystrix.CommandConfig, call func(context.Context) error) (func() error, *hystrix.CircuitBreaker) {
	t.Helper()
	hystrix.Flush() // what an earlier run of the same test left
	req := client.NewRequest(t.Name(), "Basis.Hello", nil)
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", cfg)
	circuit, _, err := hystrix.GetCircuit(t.Name() + ".Basis.Hello")
	require.NoError(t, err)
	c := hystrixplugin.NewClientWrapper()(&fake{call: call})
	return func() error { return c.Call(context.Background(), req, nil) }, circuit
}

// touchyWith is touchy with another limit of calls in flight.
func touchyWith(maxConcurrent int) hystrix.CommandConfig {
	cfg := touchy
	cfg.MaxConcurrentRequests = maxConcurrent
	return cfg
}

// MaxConcurrentRequests is no rate.
func TestStockMaxConcurrentIsNotPerSecond(t *testing.T) {
	call, _ := stock(t, touchyWith(1000), func(context.Context) error { return nil })
	start := time.Now()
	for range 10_000 {
		require.NoError(t, call())
	}
	require.Less(t, time.Since(start), 9*time.Second) // the tenth thousand would have to wait for that long
}

// Refusals of calls beyond MaxConcurrentRequests count as failures.
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

// So do a caller's own mistakes.
func TestStockCallersFaultsOpenTheCircuit(t *testing.T) {
	call, circuit := stock(t, touchy, func(context.Context) error {
		return errors.BadRequest("go.micro.srv.basis", "name is empty")
	})
	require.Error(t, call())
	require.Eventually(t, circuit.IsOpen, 10*time.Second, time.Millisecond)
}

// A call that timed out is not told to end.
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

// ErrorPercentThreshold is reached, not exceeded, and only counts once
// RequestVolumeThreshold calls were made.
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

// What a caller is told is hystrix's own error, and no go-micro error with a code.
func TestStockRefusalIsNoServiceUnavailable(t *testing.T) {
	call, circuit := stock(t, touchy, func(context.Context) error { return errors.InternalServerError("go.micro.srv.basis", "oops") })
	require.Error(t, call())
	require.Eventually(t, circuit.IsOpen, 10*time.Second, time.Millisecond)
	err := call()
	require.EqualError(t, err, "hystrix: circuit open")
	require.Zero(t, errors.Parse(err.Error()).Code)
}
