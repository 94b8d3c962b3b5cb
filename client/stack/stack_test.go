package stack_test

import (
	"context"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/memory"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	registrymemory "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
)

// start runs a server. Each call to the server takes the duration delay.
func start(t *testing.T, r registry.Registry, service string, delay time.Duration) {
	t.Helper()
	s := grpcserver.NewServer(
		server.Name(service), server.Address("127.0.0.1:0"), server.Registry(r),
		server.Broker(memory.NewBroker(func(o *broker.Options) { o.Context = context.Background() })),
	)
	require.NoError(t, proto.RegisterBasisHandler(s, &handler.Basis{ID: service, Delay: delay}))
	require.NoError(t, s.Start())
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
}

// newClient returns a client with registry r, the whole stack, and the article's thresholds.
func newClient(t *testing.T, r registry.Registry, rateLimit int) microclient.Client {
	t.Helper()
	hystrix.Flush() // removes the circuits of earlier tests
	opts := micro.Options{Client: grpcclient.NewClient(
		microclient.Registry(r),
		microclient.Selector(selector.NewSelector(selector.Registry(r))),
		microclient.Retries(stack.Retries),
	)}
	for _, o := range stack.Options(context.Background(), opentracing.NoopTracer{}, flags.Settings{
		RateLimit: rateLimit, HystrixTimeout: time.Minute, HystrixSleepWindow: time.Minute,
		HystrixErrorPercent: 10, HystrixMaxConcurrent: 10, HystrixVolume: 1,
	}, nil, nil) {
		o(&opts)
	}
	t.Cleanup(func() { require.NoError(t, opts.Client.Options().Selector.Close()) })
	return opts.Client
}

func hello(ctx context.Context, c microclient.Client, service string, opts ...microclient.CallOption) error {
	_, err := proto.NewBasisService(service, c).Hello(ctx, &proto.Request{Name: "John"}, opts...)
	return err
}

func TestCallersTimeoutsHoldAndOneThatCancelsOpensNoCircuit(t *testing.T) {
	r := registrymemory.NewRegistry()
	start(t, r, "slow", time.Hour)
	c := newClient(t, r, 0)

	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(5*time.Millisecond, cancel)
		require.Equal(t, failure.Canceled, failure.Of(hello(ctx, c, "slow")))
	}
	circuit, _, err := hystrix.GetCircuit("slow.Basis.Hello")
	require.NoError(t, err)
	require.Never(t, circuit.IsOpen, 100*time.Millisecond, 10*time.Millisecond)

	began := time.Now()
	require.Equal(t, failure.DeadlineExceeded, failure.Of(hello(context.Background(), c, "slow", microclient.WithRequestTimeout(50*time.Millisecond))))
	require.Less(t, time.Since(began), 4*time.Second, "the client's own timeout is 5 s")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began = time.Now()
	require.Error(t, hello(ctx, c, "slow"))
	require.Less(t, time.Since(began), 4*time.Second)
}

func TestADeadlineThatPassesAtTheLimiterOpensNoCircuit(t *testing.T) {
	r := registrymemory.NewRegistry()
	start(t, r, "limited", 0)
	c := newClient(t, r, 1)
	require.NoError(t, hello(context.Background(), c, "limited"))
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		require.ErrorIs(t, hello(ctx, c, "limited"), context.DeadlineExceeded)
		cancel()
	}
	require.NoError(t, hello(context.Background(), c, "limited"))
}

// One client calls two services. If one service fails, the circuit of the other service stays
// closed.
func TestServicesDoNotShareTheirFate(t *testing.T) {
	r := registrymemory.NewRegistry()
	start(t, r, "well", 0)
	c := newClient(t, r, 0)
	require.NoError(t, hello(context.Background(), c, "well"))
	require.Eventually(t, func() bool { return hello(context.Background(), c, "absent") == hystrix.ErrCircuitOpen },
		time.Minute, time.Millisecond)
	for range 20 {
		require.NoError(t, hello(context.Background(), c, "well"))
	}
}
