// Command article is the service and the client of the article, in the last version that the
// article shows. The client has the wrappers of all steps of the article, in the article's order.
//
// The code differs from the article in these points:
//
//   - RegisterBasisHandler and NewBasisService replace RegisterSayHandler and SayServiceClient.
//     From the article's own .proto, protoc-gen-micro generates the functions RegisterBasisHandler
//     and NewBasisService.
//   - The code has = where the article assigns to a field with :=, and declares a variable that the
//     article does not declare.
//   - Flags select Consul as the registry, because Consul is no longer go-micro's default registry.
//   - A flag sets the address that the server listens on. Without this flag, go-micro chooses the
//     first private address. This may be an IPv6 address, which go-micro's client cannot call.
//   - The client sets its tracer as the global tracer, as the server does. Otherwise the span
//     "call" is lost.
//   - The limits are so high that they reject no call.
package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/metadata"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	rateplugin "github.com/micro/go-plugins/wrapper/ratelimiter/uber"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	jaeger "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/proto"
)

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

// newTracer is the article's function, unchanged.
func newTracer(servicename string, addr string) (opentracing.Tracer, io.Closer, error) {
	cfg := jaegercfg.Configuration{
		ServiceName: servicename,
		Sampler: &jaegercfg.SamplerConfig{
			Type:  jaeger.SamplerTypeConst,
			Param: 1,
		},
		Reporter: &jaegercfg.ReporterConfig{
			LogSpans:            true,
			BufferFlushInterval: 1 * time.Second,
		},
	}
	sender, err := jaeger.NewUDPTransport(addr, 0)
	if err != nil {
		return nil, nil, err
	}
	reporter := jaeger.NewRemoteReporter(sender)
	return cfg.NewTracer(jaegercfg.Reporter(reporter))
}

type basis struct{}

func (*basis) Hello(ctx context.Context, req *proto.Request, rsp *proto.Response) error {
	md, ok := metadata.FromContext(ctx)
	if !ok {
		md = make(map[string]string)
	}
	wireContext, _ := opentracing.GlobalTracer().Extract(opentracing.TextMap, opentracing.TextMapCarrier(md))
	sp := opentracing.StartSpan("Hello", opentracing.ChildOf(wireContext))
	sp.SetTag("req", req)
	defer func() {
		sp.SetTag("res", rsp)
		sp.Finish()
	}()
	rsp.Msg = contender.Hello(req.Name)
	return nil
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	t, closer, err := newTracer(env.Service, env.Spans)
	if err != nil {
		return err
	}
	defer closer.Close()
	opentracing.SetGlobalTracer(t)
	service := micro.NewService(
		micro.Name(env.Service),
		micro.RegisterTTL(time.Second*30),
		micro.RegisterInterval(time.Second*10),
		micro.WrapHandler(ocplugin.NewHandlerWrapper(opentracing.GlobalTracer())),
		micro.Context(ctx),
	)
	os.Args = []string{os.Args[0], "--registry=consul", "--registry_address=" + env.Registry, "--server_address=127.0.0.1:0"}
	service.Init() // reads os.Args
	service.Init(micro.AfterStart(func() error {
		ready(service.Server().Options().Address)
		return nil
	}))
	if err := proto.RegisterBasisHandler(service.Server(), new(basis)); err != nil {
		return err
	}
	return service.Run()
}

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	t, closer, err := newTracer(env.Service+".client", env.Spans)
	if err != nil {
		return nil, nil, err
	}
	opentracing.SetGlobalTracer(t)
	hystrix.DefaultTimeout = 10_000
	hystrix.DefaultMaxConcurrent = 10_000
	service := micro.NewService(
		micro.WrapClient(roundrobin.NewClientWrapper()),
		micro.WrapClient(rateplugin.NewClientWrapper(1_000_000)),
		micro.WrapClient(hystrixplugin.NewClientWrapper()),
		micro.WrapClient(ocplugin.NewClientWrapper(t)),
	)
	os.Args = []string{os.Args[0], "--registry=consul", "--registry_address=" + env.Registry}
	service.Init()
	c := proto.NewBasisService(env.Service, service.Client())
	return func(ctx context.Context, name string) (string, error) {
		span, ctx := opentracing.StartSpanFromContext(ctx, "call")
		md, ok := metadata.FromContext(ctx)
		if !ok {
			md = make(map[string]string)
		}
		defer span.Finish()
		_ = opentracing.GlobalTracer().Inject(span.Context(), opentracing.TextMap, opentracing.TextMapCarrier(md))
		ctx = opentracing.ContextWithSpan(ctx, span)
		ctx = metadata.NewContext(ctx, md)
		req := &proto.Request{Name: name}
		span.SetTag("req", req)
		resp, err := c.Hello(ctx, req)
		if err != nil {
			span.SetTag("err", err)
			return "", err
		}
		span.SetTag("resp", resp)
		return resp.Msg, nil
	}, closer, nil
}
