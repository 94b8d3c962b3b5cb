// Command kratos implements the service and the client with go-kratos over gRPC, as in go-kratos'
// template. The client and the server use go-kratos' middleware for recovery and for tracing with
// OpenTelemetry. The server also has the rate limiter, and the client also has the circuit breaker.
// The default selector, a weighted round robin, chooses the node. The client finds nodes in Consul
// with the type discovery.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/go-kratos/aegis/ratelimit/bbr"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/middleware/circuitbreaker"
	"github.com/go-kratos/kratos/v2/middleware/ratelimit"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/hashicorp/consul/api"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/bench/contender/otelspans"
	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/dev/modern"
)

// timeout is the time limit for a call. go-micro has the same default.
const timeout = 5 * time.Second

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func serve(ctx context.Context, env contender.Env, ready func(string)) (err error) {
	provider, flush, err := modern.NewTracing(env.Service, env.Spans)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush()) }()
	listener, address, err := env.Listen()
	if err != nil {
		return err
	}
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return err
	}
	s := kratosgrpc.NewServer(
		kratosgrpc.Listener(listener),
		kratosgrpc.Options(env.ServerOptions()...),
		kratosgrpc.Timeout(timeout), // 1 s by default
		kratosgrpc.Middleware(
			recovery.Recovery(),
			tracing.Server(tracing.WithTracerProvider(provider)),
			// While the CPU load is over a threshold (80% by default), BBR limits the number of
			// calls in flight, and rejects the calls over this limit. BBR computes the limit from
			// the calls of the last ten seconds. Before a measurement, this server has no calls for
			// some time, while other contenders load the CPU. So the limit would be too low, and
			// BBR would reject calls. So the threshold here is 100.1%; the unit is 0.1%.
			ratelimit.Server(ratelimit.WithLimiter(bbr.NewLimiter(bbr.WithCPUThreshold(1001)))),
		),
	)
	basisgrpc.Register(s, otelspans.Hello(provider.Tracer("basis")))
	var deregister func() error
	app := kratos.New(
		kratos.Context(ctx),
		kratos.Name(env.Service),
		kratos.Server(s),
		kratos.AfterStart(func(context.Context) (err error) {
			if deregister, err = modern.Register(consul, env.Service, address); err == nil {
				ready(address)
			}
			return err
		}),
		kratos.BeforeStop(func(context.Context) error { return deregister() }),
	)
	return app.Run()
}

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	provider, flush, err := modern.NewTracing(env.Service+".client", env.Spans)
	if err != nil {
		return nil, nil, err
	}
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return nil, nil, err
	}
	subset := kratosgrpc.WithSubset(0) // call all nodes, as the other contenders do; kratos's default is at most 25 nodes
	if env.Shipped {
		subset = kratosgrpc.WithSubset(25)
	}
	conn, err := kratosgrpc.DialInsecure(ctx,
		kratosgrpc.WithEndpoint("discovery:///"+env.Service),
		kratosgrpc.WithDiscovery(discovery{consul}),
		subset,
		kratosgrpc.WithOptions(env.DialOptions()...),
		kratosgrpc.WithTimeout(timeout), // 2 s by default
		kratosgrpc.WithMiddleware(
			recovery.Recovery(),
			tracing.Client(tracing.WithTracerProvider(provider)),
			circuitbreaker.Client(),
		),
	)
	if err != nil {
		return nil, nil, err
	}
	return otelspans.Call(provider.Tracer("basis"), conn), contender.Closer(flush), nil
}
