// Command basis is the pair: its client makes calls as ../../../../client does, with the
// same stack of wrappers or with some of them. Its server stands for ../../../../srv
// where there are to be many in one process.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/registry"
	microserver "github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/gctuning"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/srv/malformed"
	"github.com/gomicroexample/basis/tracer"
)

const clientName = "go.micro.client.basis"

// settings let the limiter and the breaker act on every call and refuse none.
var settings = flags.Settings{
	RateLimit:            1_000_000,
	HystrixTimeout:       10 * time.Second,
	HystrixSleepWindow:   time.Second,
	HystrixErrorPercent:  100,
	HystrixMaxConcurrent: 10_000,
	HystrixVolume:        1_000_000,
}

// all is the default of -wrappers: the pair's own stack.
const all = "all"

var (
	instances = flag.Int("instances", 1, "server: how many, each on a port of its own")
	wrappers  = flag.String("wrappers", all, "client: which of opentracing, limiter, breaker and roundrobin, separated by commas; all: as the pair's client has them")
)

func main() {
	gctuning.Apply()
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func newRegistry(env contender.Env) (registry.Registry, error) {
	r, err := consul.NewRegistry()
	if err != nil {
		return nil, err
	}
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
			grpc.StreamInterceptor(malformed.Interceptor),
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
	service := micro.NewService(
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient(microclient.Retries(stack.Retries))),
		micro.Registry(r),
		micro.Broker(cmdline.NewBroker()),
		micro.Name(clientName),
	)
	// ctx is only for finding the server, and the load goes on after it.
	calls := context.WithoutCancel(ctx)
	if *wrappers == all {
		service.Init(stack.Options(calls, t, settings, nil, nil)...)
	} else {
		service.Init(parts(calls, t, settings, *wrappers)...)
	}
	if err := balancer.Find(ctx, service.Client(), env.Service); err != nil {
		return nil, nil, err
	}
	basis := proto.NewBasisService(env.Service, service.Client())
	if env.Spans == "" {
		return func(ctx context.Context, name string) (string, error) {
			ctx, _ = balancer.RecordAttempt(ctx)
			rsp, err := basis.Hello(ctx, &proto.Request{Name: name})
			return rsp.GetMsg(), err
		}, closer, nil
	}
	return func(ctx context.Context, name string) (string, error) {
		span := t.StartSpan("call")
		defer span.Finish()
		ctx, _ = balancer.RecordAttempt(opentracing.ContextWithSpan(ctx, span))

		req := &proto.Request{Name: name}
		span.SetTag("req", oneline.Escape(req.GetName()))
		rsp, err := basis.Hello(ctx, req)
		if err == nil {
			span.SetTag("resp", oneline.Escape(rsp.GetMsg()))
		}
		return rsp.GetMsg(), err
	}, closer, nil
}
