// Command kratos is go-kratos wired as its template does it, with the middleware
// that it has for what the pair does: recovery, tracing (OpenTelemetry), a rate
// limiter on the server and a circuit breaker on the client, over gRPC. Nodes are
// chosen by its default selector, a weighted round robin. They are in Consul: see discovery.
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

// timeout is for a call, the pair's by default.
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
			// While the CPU is busier than a threshold, 80% by default, BBR refuses
			// what is more at once than the last ten seconds had. Between two rounds
			// that is nothing, and the CPU is busy; so the threshold is above 100%.
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
	subset := kratosgrpc.WithSubset(0) // the others call all nodes, not 25 of them
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
