package stack_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	registrymemory "github.com/micro/go-micro/registry/memory"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/limiter"
	_ "github.com/gomicroexample/basis/internal/cmdline" // keeps go-micro's default router from querying the network
)

// inner is the client that a wrapper under test wraps.
type inner struct {
	microclient.Client
	calls atomic.Int64
	call  func(ctx context.Context, req microclient.Request, rsp any, opts microclient.CallOptions) error
}

func (c *inner) Call(ctx context.Context, req microclient.Request, rsp any, opts ...microclient.CallOption) error {
	c.calls.Add(1)
	var all microclient.CallOptions
	for _, o := range opts {
		o(&all)
	}
	return c.call(ctx, req, rsp, all)
}

// wrappers are functions that create the client wrappers to test: the stack's own wrappers, and the
// wrappers of go-plugins. The function close stops everything that the wrapper has started.
var wrappers = map[string]func(t *testing.T) (wrap microclient.Wrapper, close func()){
	"tracer": func(*testing.T) (microclient.Wrapper, func()) {
		return ocplugin.NewClientWrapper(opentracing.NoopTracer{}), func() {}
	},
	"limiter": func(*testing.T) (microclient.Wrapper, func()) {
		return limiter.New(context.Background(), 1_000_000, func(time.Duration) {}), func() {}
	},
	"no limit": func(*testing.T) (microclient.Wrapper, func()) {
		return limiter.New(context.Background(), 0, nil), func() {}
	},
	"breaker": func(*testing.T) (microclient.Wrapper, func()) {
		return breaker.New(hystrixplugin.NewClientWrapper(), 100), func() {}
	},
	"round robin": func(*testing.T) (microclient.Wrapper, func()) {
		return roundrobin.NewClientWrapper(), func() {}
	},
	"balancer": func(t *testing.T) (microclient.Wrapper, func()) {
		r := registrymemory.NewRegistry()
		require.NoError(t, r.Register(&registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "a", Address: "a:1"}}}))
		b := balancer.New(nil)
		b.Selector(selector.Registry(r))
		return b.Wrap(roundrobin.NewClientWrapper()), b.Close
	},
}

type wrapperKey struct{}

// TestWrappersKeepGoMicrosContract tests, for each wrapper, the behavior on which callers rely.
func TestWrappersKeepGoMicrosContract(t *testing.T) {
	hystrix.Flush() // removes the circuits of earlier tests
	hystrix.DefaultTimeout, hystrix.DefaultMaxConcurrent, hystrix.DefaultVolumeThreshold = 60_000, 100+breaker.Headroom, 1_000_000
	t.Cleanup(hystrix.Flush)
	for name, newWrapper := range wrappers {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			wrap, closeWrapper := newWrapper(t)
			in := &inner{Client: grpcclient.NewClient()}
			c := wrap(in)
			req := c.NewRequest("svc", "Basis.Hello", "John")
			require.Equal(t, []string{"svc", "Basis.Hello"}, []string{req.Service(), req.Endpoint()})
			require.Equal(t, in.String(), c.String())
			require.Equal(t, in.Options().CallOptions.Retries, c.Options().CallOptions.Retries)

			// A call reaches the inner client once, with its context, request, response and
			// options.
			var rsp string
			in.call = func(ctx context.Context, r microclient.Request, to any, opts microclient.CallOptions) error {
				*to.(*string) = ctx.Value(wrapperKey{}).(string) + r.Body().(string) + opts.Address[0]
				return nil
			}
			ctx := context.WithValue(context.Background(), wrapperKey{}, "Hi ")
			require.NoError(t, c.Call(ctx, req, &rsp, microclient.WithAddress("@a")))
			require.Equal(t, "Hi John@a", rsp)
			require.EqualValues(t, 1, in.calls.Load())

			// The caller gets the error of the inner client, unchanged.
			in.call = func(context.Context, microclient.Request, any, microclient.CallOptions) error {
				return errors.NotFound("svc", "nobody of that name")
			}
			require.Equal(t, errors.NotFound("svc", "nobody of that name"), c.Call(ctx, req, &rsp))

			// When the caller's context ends, the context of the inner client ends too, and the
			// call returns.
			in.call = func(ctx context.Context, _ microclient.Request, _ any, _ microclient.CallOptions) error {
				<-ctx.Done()
				return errors.Timeout("go.micro.client", "%v", ctx.Err())
			}
			timeout, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			require.EqualError(t, c.Call(timeout, req, &rsp), errors.Timeout("go.micro.client", "context deadline exceeded").Error())

			// Several callers share the wrapper. Each caller gets its own response. No goroutine
			// leaks.
			in.call = func(_ context.Context, r microclient.Request, to any, _ microclient.CallOptions) error {
				*to.(*string) = r.Body().(string)
				return nil
			}
			var callers sync.WaitGroup
			for _, name := range []string{"Ann", "Bob", "Cem", "Dan"} {
				callers.Go(func() {
					for range 100 {
						var rsp string
						if err := c.Call(ctx, c.NewRequest("svc", "Basis.Hello", name), &rsp); err != nil || rsp != name {
							t.Errorf("%s got %q, %v", name, rsp, err)
						}
					}
				})
			}
			callers.Wait()
			closeWrapper()
			ignored := []goleak.Option{
				before,
				// Hystrix never stops these two goroutines of a circuit.
				goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
				goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"),
				// The memory registry may still send events to stopped watchers.
				goleak.IgnoreAnyFunction("github.com/micro/go-micro/registry/memory.(*Registry).watch"),
				goleak.IgnoreAnyFunction("github.com/micro/go-micro/registry/memory.(*Watcher).Next"),
			}
			leak := goleak.Find(ignored...)
			for end := time.Now().Add(time.Minute); leak != nil && time.Now().Before(end); {
				leak = goleak.Find(ignored...) // goleak.Find itself waits for a moment
			}
			require.NoError(t, leak)
		})
	}
}
