// Command gokit implements the service and the client with go-kit, as in go-kit's examples
// stringsvc3 and addsvc. It has these features of the pair: gRPC, Consul, a round robin,
// hystrix-go, a limiter that waits, and opentracing with jaeger-client-go.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/go-kit/kit/circuitbreaker"
	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/ratelimit"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	kitopentracing "github.com/go-kit/kit/tracing/opentracing"
	kitgrpc "github.com/go-kit/kit/transport/grpc"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

// timeout is the time limit for a call with all its attempts. go-micro has the same default.
const timeout = 5 * time.Second

var logger = log.NewLogfmtLogger(os.Stderr)

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	t, closer, err := newTracer(env.Service, env.Spans)
	if err != nil {
		return err
	}
	defer closer.Close()
	listener, address, err := env.Listen()
	if err != nil {
		return err
	}
	s := grpc.NewServer(append(env.ServerOptions(), grpc.UnaryInterceptor(kitgrpc.Interceptor))...)
	basisgrpc.Register(s, binding(t))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer()) // SERVING from the start
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	defer s.GracefulStop()

	registry, err := newRegistry(env)
	if err != nil {
		return err
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	registrar := consul.NewRegistrar(registry, &api.AgentServiceRegistration{
		ID:      fmt.Sprintf("%s-%d", env.Service, port),
		Name:    env.Service,
		Address: host,
		Port:    port,
		// go-kit's sd/consul does not renew a TTL. So Consul checks the server every 10 s. The pair
		// renews its TTL every 10 s too. The check is passing from the start, so that clients need
		// not wait for Consul's first check.
		Check: &api.AgentServiceCheck{GRPC: address, Interval: "10s", Status: api.HealthPassing},
	}, logger)
	registrar.Register()
	defer registrar.Deregister()
	ready(address)
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

// binding connects the gRPC method to go-kit's endpoint. A user of go-kit writes such a function
// for each method. The request and the response of the endpoint are the protobuf messages. Other
// types would need a conversion in each call.
func binding(t opentracing.Tracer) basisgrpc.Server {
	handler := kitgrpc.NewServer(hello(t), unchanged, unchanged,
		// GRPCToContext starts the server's span, but does not finish it. So the finalizer finishes
		// the span.
		kitgrpc.ServerBefore(kitopentracing.GRPCToContext(t, "Hello", logger)),
		kitgrpc.ServerFinalizer(func(ctx context.Context, _ error) { opentracing.SpanFromContext(ctx).Finish() }),
	)
	return func(ctx context.Context, req *proto.Request) (*proto.Response, error) {
		_, rsp, err := handler.ServeGRPC(ctx, req)
		if err != nil {
			return nil, err
		}
		return rsp.(*proto.Response), nil
	}
}

// hello returns the endpoint of the method Hello. The endpoint creates a span for each call, as the
// pair's handler does.
func hello(t opentracing.Tracer) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		req := request.(*proto.Request)
		span, _ := opentracing.StartSpanFromContextWithTracer(ctx, t, "Hello")
		defer span.Finish()
		span.SetTag("req", req.GetName())
		rsp := &proto.Response{Msg: contender.Hello(req.GetName())}
		span.SetTag("res", rsp.GetMsg())
		return rsp, nil
	}
}

func unchanged(_ context.Context, message any) (any, error) { return message, nil }

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	t, closer, err := newTracer(env.Service+".client", env.Spans)
	if err != nil {
		return nil, nil, err
	}
	registry, err := newRegistry(env)
	if err != nil {
		return nil, nil, err
	}
	// The limits are so high that the limiter and the breaker reject no call. The limiter and the
	// breaker still check every call.
	hystrix.ConfigureCommand("Hello", hystrix.CommandConfig{Timeout: 10_000, MaxConcurrentRequests: 10_000})
	limiter := rate.NewLimiter(1_000_000, 100)

	instancer := consul.NewInstancer(registry, logger, env.Service, nil, true)
	endpointer := sd.NewEndpointer(instancer, func(instance string) (endpoint.Endpoint, io.Closer, error) {
		conn, err := grpc.NewClient(instance, append(env.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return nil, nil, err
		}
		// The innermost layer comes first, as in stringsvc3. The limiter is outside the breaker,
		// so that the breaker's timeout does not include the wait for the limiter.
		e := kitgrpc.NewClient(conn, basisgrpc.Service, basisgrpc.Method, unchanged, unchanged, proto.Response{},
			kitgrpc.ClientBefore(kitopentracing.ContextToGRPC(t, logger))).Endpoint()
		e = kitopentracing.TraceClient(t, "Hello")(e)
		e = circuitbreaker.Hystrix("Hello")(e)
		e = ratelimit.NewDelayingLimiter(limiter)(e)
		return e, conn, nil
	}, logger)
	if err := known(ctx, endpointer); err != nil {
		return nil, nil, err
	}
	// A call has up to three attempts, as in the pair.
	hello := lb.Retry(3, timeout, lb.NewRoundRobin(endpointer))

	return func(ctx context.Context, name string) (string, error) {
		span := t.StartSpan("call")
		defer span.Finish()
		req := &proto.Request{Name: name}
		span.SetTag("req", req.GetName())
		response, err := hello(opentracing.ContextWithSpan(ctx, span), req)
		if err != nil {
			span.SetTag("err", err.Error())
			return "", err
		}
		rsp := response.(*proto.Response)
		span.SetTag("resp", rsp.GetMsg())
		return rsp.GetMsg(), nil
	}, closer, nil
}

// known waits until e has an endpoint. It returns an error if ctx is done first. The instancer
// sends the nodes that it finds to e over a channel, so e is empty at first.
func known(ctx context.Context, e sd.Endpointer) error {
	for {
		if endpoints, err := e.Endpoints(); err == nil && len(endpoints) > 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("no instance: %w", ctx.Err())
		}
	}
}

// newTracer returns a tracer of jaeger-client-go. The queue is so long that the tracer drops no
// spans.
func newTracer(service, spans string) (opentracing.Tracer, io.Closer, error) {
	return jaegercfg.Configuration{
		ServiceName: service,
		Sampler:     &jaegercfg.SamplerConfig{Type: jaeger.SamplerTypeConst, Param: 1},
		Reporter:    &jaegercfg.ReporterConfig{QueueSize: 10_000, LocalAgentHostPort: spans},
	}.NewTracer()
}

func newRegistry(env contender.Env) (consul.Client, error) {
	client, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return nil, fmt.Errorf("client of Consul at %s: %w", env.Registry, err)
	}
	return consul.NewClient(client), nil
}
