// Command kratos is go-kratos wired as its template does it, with the middleware
// that it has for what the pair does: recovery, tracing (OpenTelemetry), a rate
// limiter on the server and a circuit breaker on the client, over gRPC. Nodes are
// chosen by its default selector, a weighted round robin. It discovers nothing: see
// static.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-kratos/aegis/ratelimit/bbr"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/middleware/circuitbreaker"
	"github.com/go-kratos/kratos/v2/middleware/ratelimit"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	"github.com/go-kratos/kratos/v2/registry"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"go.opentelemetry.io/otel/attribute"
	//lint:ignore SA1019 the only exporter of OpenTelemetry's that sends over UDP
	"go.opentelemetry.io/otel/exporters/jaeger"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/bench/contender/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

// timeout is for a call, the pair's by default.
const timeout = 5 * time.Second

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	provider, err := newProvider(env.Service, env.Spans)
	if err != nil {
		return err
	}
	defer closer{provider}.Close()
	s := kratosgrpc.NewServer(
		kratosgrpc.Address("127.0.0.1:0"),
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
	basisgrpc.Register(s, hello(provider.Tracer("basis")))
	endpoint, err := s.Endpoint() // which listens
	if err != nil {
		return err
	}
	app := kratos.New(
		kratos.Context(ctx),
		kratos.Name(env.Service),
		kratos.Server(s),
		kratos.AfterStart(func(context.Context) error { ready(endpoint.Host); return nil }),
	)
	return app.Run()
}

// hello is the service, with a span of its own as the pair's handler has.
func hello(t trace.Tracer) basisgrpc.Server {
	return func(ctx context.Context, req *proto.Request) (*proto.Response, error) {
		_, span := t.Start(ctx, "Hello")
		defer span.End()
		span.SetAttributes(attribute.String("req", req.GetName()))
		rsp := &proto.Response{Msg: contender.Hello(req.GetName())}
		span.SetAttributes(attribute.String("res", rsp.GetMsg()))
		return rsp, nil
	}
}

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	provider, err := newProvider(env.Service+".client", env.Spans)
	if err != nil {
		return nil, nil, err
	}
	conn, err := kratosgrpc.DialInsecure(ctx,
		kratosgrpc.WithEndpoint("discovery:///"+env.Service),
		kratosgrpc.WithDiscovery(static(env.Address)),
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
	t := provider.Tracer("basis")
	return func(ctx context.Context, name string) (string, error) {
		ctx, span := t.Start(ctx, "call")
		defer span.End()
		req := &proto.Request{Name: name}
		span.SetAttributes(attribute.String("req", req.GetName()))
		rsp, err := basisgrpc.Hello(ctx, conn, req)
		if err != nil {
			span.SetAttributes(attribute.String("err", err.Error()))
			return "", err
		}
		span.SetAttributes(attribute.String("resp", rsp.GetMsg()))
		return rsp.GetMsg(), nil
	}, closer{provider}, nil
}

// static is a registry with one node, at that address. Kratos' own for Consul is
// the module github.com/go-kratos/kratos/contrib/registry/consul/v2, which could
// not be fetched.
type static string

func (s static) GetService(_ context.Context, name string) ([]*registry.ServiceInstance, error) {
	return []*registry.ServiceInstance{{ID: string(s), Name: name, Endpoints: []string{"grpc://" + string(s)}}}, nil
}

func (s static) Watch(ctx context.Context, name string) (registry.Watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	nodes, err := s.GetService(ctx, name)
	first := make(chan []*registry.ServiceInstance, 1)
	first <- nodes
	return &watcher{ctx: ctx, cancel: cancel, first: first}, err
}

type watcher struct {
	ctx    context.Context
	cancel context.CancelFunc
	first  chan []*registry.ServiceInstance
}

// Next returns the node the first time. After that there is nothing new.
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	select {
	case nodes := <-w.first:
		return nodes, nil
	case <-w.ctx.Done():
		return nil, w.ctx.Err()
	}
}

func (w *watcher) Stop() error {
	w.cancel()
	return nil
}

// newProvider has every span sampled, as is the default, and sent in batches over
// UDP to spans, a host:port.
func newProvider(service, spans string) (*sdktrace.TracerProvider, error) {
	host, port, err := net.SplitHostPort(spans)
	if err != nil {
		return nil, fmt.Errorf("address for spans %q: %w", spans, err)
	}
	exporter, err := jaeger.New(jaeger.WithAgentEndpoint(jaeger.WithAgentHost(host), jaeger.WithAgentPort(port)))
	if err != nil {
		return nil, fmt.Errorf("exporter of spans to %s: %w", spans, err)
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(service))),
	), nil
}

// closer sends the last spans.
type closer struct{ *sdktrace.TracerProvider }

func (c closer) Close() error { return c.Shutdown(context.Background()) }
