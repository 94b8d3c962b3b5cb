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

	"github.com/gomicroexample/basis/client/breaker"
)

// fake is a client whose calls run a function of the test.
type fake struct {
	client.Client // nil; provides the methods that the tests do not call
	call          func(context.Context) error
	timeout       time.Duration
}

func (f *fake) Call(ctx context.Context, _ client.Request, _ any, _ ...client.CallOption) error {
	return f.call(ctx)
}

func (f *fake) Options() client.Options {
	return client.Options{CallOptions: client.CallOptions{RequestTimeout: f.timeout}}
}

const maxConcurrent = 2

// protected returns a function that makes a call through the breaker. Each test has its own
// circuit, which has the name of the test.
func protected(t *testing.T, cfg hystrix.CommandConfig, call func(context.Context) error) func() error {
	t.Helper()
	hystrix.Flush() // removes the circuits of an earlier run of the same test
	req := client.NewRequest(t.Name(), "Basis.Hello", nil)
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", cfg)
	c := breaker.New(hystrixplugin.NewClientWrapper(), maxConcurrent)(&fake{call: call, timeout: time.Minute})
	return func() error { return c.Call(context.Background(), req, nil) }
}

// openCircuit makes calls until the circuit is open. Hystrix counts in the background, so the
// circuit may still let a call through after the failure that opens it.
func openCircuit(t *testing.T, call func() error) {
	t.Helper()
	require.Eventually(t, func() bool { return call() == hystrix.ErrCircuitOpen },
		10*time.Second, time.Millisecond, "the circuit does not open")
}

var touchy = hystrix.CommandConfig{
	Timeout: 60_000, SleepWindow: 60_000, ErrorPercentThreshold: 10, MaxConcurrentRequests: maxConcurrent + breaker.Headroom, RequestVolumeThreshold: 1,
}

func TestServersFaultsOpenTheCircuit(t *testing.T) {
	err := errors.InternalServerError("go.micro.srv.basis", "oops")
	call := protected(t, touchy, func(context.Context) error { return err })
	require.Equal(t, err, call())
	openCircuit(t, call)
}

func TestTimeoutsOpenTheCircuit(t *testing.T) {
	call := protected(t, touchy, func(context.Context) error { return errors.Timeout("go.micro.client", "late") })
	openCircuit(t, call)
}

func TestCallersFaultsDoNotOpenTheCircuit(t *testing.T) {
	bad := errors.BadRequest("go.micro.srv.basis", "name is empty")
	call := protected(t, touchy, func(context.Context) error { return bad })
	for range 50 {
		require.Equal(t, bad, call())
	}
	staysClosed(t, t.Name())
}

// staysClosed fails the test if the circuit of a service opens within 200 ms. This time is long
// enough for hystrix to count all earlier calls.
func staysClosed(t *testing.T, service string) {
	t.Helper()
	circuit, _, err := hystrix.GetCircuit(service + ".Basis.Hello")
	require.NoError(t, err)
	require.Never(t, circuit.IsOpen, 200*time.Millisecond, 10*time.Millisecond)
}

func TestACallerThatCancelsDoesNotOpenTheCircuit(t *testing.T) {
	hystrix.Flush()
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", touchy)
	c := breaker.New(hystrixplugin.NewClientWrapper(), maxConcurrent)(&fake{timeout: time.Minute, call: func(ctx context.Context) error {
		<-ctx.Done()
		return errors.Timeout("go.micro.client", "%v", ctx.Err()) // go-micro's client returns this error
	}})
	for range 50 {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Millisecond, cancel)
		err := c.Call(ctx, client.NewRequest(t.Name(), "Basis.Hello", nil), nil)
		require.ErrorContains(t, err, "context canceled")
	}
	staysClosed(t, t.Name())
}

func TestACallsOwnTimeoutHolds(t *testing.T) {
	hystrix.Flush()
	req := client.NewRequest(t.Name(), "Basis.Hello", nil)
	hystrix.ConfigureCommand(t.Name()+".Basis.Hello", touchy)
	var deadline time.Time
	c := breaker.New(hystrixplugin.NewClientWrapper(), maxConcurrent)(&fake{timeout: time.Minute, call: func(ctx context.Context) error {
		deadline, _ = ctx.Deadline()
		return nil
	}})
	before := time.Now()
	require.NoError(t, c.Call(context.Background(), req, nil, client.WithRequestTimeout(time.Second)))
	require.WithinRange(t, deadline, before.Add(time.Second), time.Now().Add(time.Second), "the timeout of the call's options")

	ctx, cancel := context.WithDeadline(context.Background(), before.Add(3*time.Second))
	defer cancel()
	require.NoError(t, c.Call(ctx, req, nil))
	require.Equal(t, before.Add(3*time.Second), deadline, "the deadline of the caller's context")
}

func TestACallThatTimedOutIsCancelled(t *testing.T) {
	cfg := touchy
	cfg.Timeout = 10
	ended := make(chan error, 1)
	call := protected(t, cfg, func(ctx context.Context) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	require.Equal(t, hystrix.ErrTimeout, call())
	select {
	case err := <-ended:
		require.Equal(t, context.Canceled, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the call was not canceled")
	}
}

func TestEachCallHasTheClientsRequestTimeout(t *testing.T) {
	var deadline time.Time
	call := protected(t, touchy, func(ctx context.Context) error {
		deadline, _ = ctx.Deadline()
		return nil
	})
	before := time.Now()
	require.NoError(t, call())
	require.WithinRange(t, deadline, before.Add(time.Minute), time.Now().Add(time.Minute))
}

// If there are maxConcurrent callers, no call is rejected.
func TestCallersWithinTheLimitAreNotRejected(t *testing.T) {
	call := protected(t, touchy, func(context.Context) error { return nil })
	var callers sync.WaitGroup
	for range maxConcurrent {
		callers.Go(func() {
			for range 5000 {
				if err := call(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

func TestCallersBeyondTheLimitAreRejectedAndDoNotOpenTheCircuit(t *testing.T) {
	var inFlight, callers sync.WaitGroup
	release := make(chan struct{})
	inFlight.Add(maxConcurrent)
	call := protected(t, touchy, func(context.Context) error {
		inFlight.Done()
		<-release
		return nil
	})
	for range maxConcurrent {
		callers.Go(func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
	}
	inFlight.Wait()
	for range 10 {
		require.Equal(t, hystrix.ErrMaxConcurrency, call())
	}
	close(release)
	callers.Wait()
	inFlight.Add(1)
	require.NoError(t, call())
}
