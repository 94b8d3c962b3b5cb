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
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	registrymemory "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/proto"
)

// clientWith returns a client with registry r and the stack for the settings s. newClient creates
// the client.
func clientWith(t *testing.T, r registry.Registry, newClient func(...microclient.Option) microclient.Client, retries int, s flags.Settings) microclient.Client {
	t.Helper()
	hystrix.Flush() // removes the circuits of earlier tests
	opts := micro.Options{Client: newClient(
		microclient.Registry(r),
		microclient.Selector(selector.NewSelector(selector.Registry(r))),
		microclient.Retries(retries),
	)}
	s.HystrixSleepWindow, s.HystrixErrorPercent, s.HystrixMaxConcurrent, s.HystrixVolume = time.Minute, 100, 10, 100
	for _, o := range stack.Options(context.Background(), opentracing.NoopTracer{}, s, nil, nil) {
		o(&opts)
	}
	t.Cleanup(func() { require.NoError(t, opts.Client.Options().Selector.Close()) })
	return opts.Client
}

// A RequestTimeout of 5 s applies even if HystrixTimeout is longer, although 5 s is also go-micro's
// default.
func TestTimeoutAndRetriesOfTheClient(t *testing.T) {
	for _, test := range []struct {
		breaker, request time.Duration
		retries          int
		wantTimeout      time.Duration
		wantRetries      int
	}{
		{1200 * time.Millisecond, 0, stack.Retries, 5 * time.Second, stack.Retries},
		{time.Minute, 0, stack.Retries, time.Minute, stack.Retries},
		{time.Minute, 5 * time.Second, stack.Retries, 5 * time.Second, stack.Retries},
		{50 * time.Millisecond, 0, stack.Retries, 5 * time.Second, 1},
		{time.Minute, 0, 0, time.Minute, 0},
		{time.Minute, 0, 1, time.Minute, 1}, // go-micro's default
	} {
		c := clientWith(t, registrymemory.NewRegistry(), grpcclient.NewClient, test.retries,
			flags.Settings{HystrixTimeout: test.breaker, RequestTimeout: test.request})
		got := c.Options().CallOptions
		require.Equal(t, test.wantTimeout, got.RequestTimeout, "%+v", test)
		require.Equal(t, test.wantRetries, got.Retries, "%+v", test)
	}
}

// failing is a service whose calls fail.
type failing struct{}

func (failing) Hello(context.Context, *proto.Request, *proto.Response) error {
	return errors.InternalServerError("failing", "no disk")
}

// serve runs a server with handler, and registers the server in r.
func serve(t *testing.T, r registry.Registry, service string, handler proto.BasisHandler, newServer func(...server.Option) server.Server) {
	t.Helper()
	s := newServer(
		server.Name(service), server.Address("127.0.0.1:0"), server.Registry(r),
		server.Broker(memory.NewBroker(func(o *broker.Options) { o.Context = context.Background() })),
	)
	require.NoError(t, proto.RegisterBasisHandler(s, handler))
	require.NoError(t, s.Start())
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
}

// Three retries do not fit into the breaker's timeout of 1 s: the timeout would pass during the
// last back-off. So the client retries only twice, and the caller sees the server's error.
func TestRetriesThatDoNotFitHideNoError(t *testing.T) {
	r := registrymemory.NewRegistry()
	serve(t, r, "failing", failing{}, grpcserver.NewServer)
	c := clientWith(t, r, grpcclient.NewClient, 3, flags.Settings{HystrixTimeout: time.Second})
	require.ErrorContains(t, hello(context.Background(), c, "failing"), "no disk")
}

// If the client and the server speak different protocols, the error says which flags to change.
func TestProtocolsThatDiffer(t *testing.T) {
	r := registrymemory.NewRegistry()
	settings := flags.Settings{HystrixTimeout: time.Minute}

	serve(t, r, "grpc", failing{}, grpcserver.NewServer)
	rpc := clientWith(t, r, microclient.NewClient, 0, settings)
	err := hello(context.Background(), rpc, "grpc")
	require.ErrorContains(t, err, "the server speaks gRPC; leave out --client, or start the server with --server=rpc")

	serve(t, r, "rpc", failing{}, server.NewServer)
	grpc := clientWith(t, r, grpcclient.NewClient, 0, settings)
	err = hello(context.Background(), grpc, "rpc")
	require.ErrorContains(t, err, "; the server has --server=rpc: use --client=rpc")

	// If both speak the same protocol, the error does not change.
	grpc = clientWith(t, r, grpcclient.NewClient, 0, settings)
	require.ErrorContains(t, hello(context.Background(), grpc, "grpc"), `"detail":"no disk"`)
	rpc = clientWith(t, r, microclient.NewClient, 0, settings)
	require.ErrorContains(t, hello(context.Background(), rpc, "rpc"), `"detail":"no disk"`)
}
