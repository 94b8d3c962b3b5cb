// Command basis is the pair: its client makes calls as ../../../client does, which
// TestBasisIsThePair in ../.. compares with it. Its server stands for ../../../srv
// where there are to be many in one process.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/registry"
	microserver "github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/bench/contender"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/conns"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/limiter"
	"github.com/gomicroexample/basis/client/nodes"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/srv/refuse"
	"github.com/gomicroexample/basis/tracer"
)

const clientName = "go.micro.client.basis"

// Settings of the limiter and the breaker that let each act on every call and
// refuse none.
const (
	perSecond     = 1_000_000
	maxConcurrent = 10_000
	timeout       = 10 * time.Second
)

var (
	instances = flag.Int("instances", 1, "server: how many, each on a port of its own")
	wrappers  = flag.String("wrappers", "opentracing,limiter,breaker,roundrobin", "client: which of them, separated by commas")
)

// As in srv and client.
const (
	ballast = 16 << 20
	retries = 2
)

func main() {
	defer runtime.KeepAlive(make([]byte, ballast))
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func newRegistry(env contender.Env) (registry.Registry, error) {
	r := consul.NewRegistry()
	return r, r.Init(registry.Addrs(env.Registry))
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	t, closer, err := tracer.NewTracer(env.Service, env.Spans)
	if err != nil {
		return err
	}
	defer closer.Close()
	servers, ctx := errgroup.WithContext(ctx)
	var registered sync.WaitGroup
	for i := range *instances {
		registered.Add(1)
		r, err := newRegistry(env)
		if err != nil {
			return err
		}
		service := micro.NewService(
			micro.Server(grpcserver.NewServer(microserver.Id(fmt.Sprint(i)))), // the default is one per process
			micro.Client(grpcclient.NewClient()),
			micro.Context(ctx),
			micro.Registry(r),
			micro.Broker(cmdline.NewBroker()),
			micro.Name(env.Service),
			micro.Address("127.0.0.1:0"),
			micro.RegisterTTL(time.Second*30),
			micro.RegisterInterval(time.Second*10),
			micro.WrapHandler(ocplugin.NewHandlerWrapper(t)),
			micro.AfterStart(func() error { registered.Done(); return nil }),
		)
		// Those of srv's limits that bear on how long a call takes. All instances are in
		// one process, and share its workers.
		_ = service.Server().Init(grpcserver.Options(
			grpc.StaticStreamWindowSize(64<<10),
			grpc.StreamInterceptor(refuse.Malformed),
			grpc.NumStreamWorkers(uint32(max(1, 64 / *instances))),
		))
		if err := proto.RegisterBasisHandler(service.Server(), &handler.Basis{ID: env.Service}); err != nil {
			return err
		}
		servers.Go(service.Run)
	}
	go func() {
		registered.Wait()
		ready(fmt.Sprintf("%d ports", *instances))
	}()
	return servers.Wait()
}

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	r, err := newRegistry(env)
	if err != nil {
		return nil, nil, err
	}
	var (
		t      opentracing.Tracer = opentracing.NoopTracer{}
		closer io.Closer          = io.NopCloser(nil)
	)
	if env.Spans != "" {
		if t, closer, err = tracer.NewTracer(clientName, env.Spans); err != nil {
			return nil, nil, err
		}
	}
	hystrix.DefaultTimeout = int(timeout.Milliseconds())
	hystrix.DefaultMaxConcurrent = maxConcurrent + breaker.Headroom
	pool := conns.New(nil)
	var stack []microclient.Wrapper
	for _, w := range []struct {
		name string
		wrap microclient.Wrapper
	}{
		{"opentracing", ocplugin.NewClientWrapper(t)},
		{"limiter", limiter.New(perSecond)},
		{"breaker", breaker.Guard(hystrixplugin.NewClientWrapper(), maxConcurrent)},
		{"roundrobin", nodes.RandomStart(roundrobin.NewClientWrapper())},
	} {
		if slices.Contains(strings.Split(*wrappers, ","), w.name) {
			stack = append(stack, w.wrap)
		}
	}
	service := micro.NewService(
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient(
			microclient.Retries(retries),
			microclient.Retry(failure.Retry),
			microclient.RequestTimeout(timeout),
		)),
		micro.Registry(r),
		micro.Broker(cmdline.NewBroker()),
		micro.Name(clientName),
		micro.WrapClient(append(stack, pool.Prefer)...),
		micro.WrapCall(nodes.Call, pool.Call),
	)
	if err := nodes.Find(ctx, service.Client(), env.Service); err != nil {
		return nil, nil, err
	}
	basis := proto.NewBasisService(env.Service, service.Client())
	if env.Spans == "" {
		return func(ctx context.Context, name string) (string, error) {
			ctx, _ = nodes.Watch(ctx)
			rsp, err := basis.Hello(ctx, &proto.Request{Name: name})
			return rsp.GetMsg(), err
		}, closer, nil
	}
	return func(ctx context.Context, name string) (string, error) {
		span := t.StartSpan("call")
		defer span.Finish()
		ctx, _ = nodes.Watch(opentracing.ContextWithSpan(ctx, span))

		req := &proto.Request{Name: name}
		span.SetTag("req", oneline.Escape(req.GetName()))
		rsp, err := basis.Hello(ctx, req)
		if err == nil {
			span.SetTag("resp", oneline.Escape(rsp.GetMsg()))
		}
		return rsp.GetMsg(), err
	}, closer, nil
}
