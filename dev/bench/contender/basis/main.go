// Command basis is the pair's client for the bench. It has all wrappers of the program client, or
// only some of these wrappers. The server is the program srv.
package main

import (
	"context"
	"flag"
	"io"
	"time"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/registry"
	grpcserver "github.com/micro/go-micro/server/grpc"
	opentracing "github.com/opentracing/opentracing-go"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/internal/admin"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/gctuning"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/tracer"
)

const clientName = "go.micro.client.basis"

// settings has such high limits that the limiter and the breaker reject no call. The limiter and
// the breaker still check every call.
var settings = flags.Settings{
	RateLimit:            1_000_000,
	HystrixTimeout:       10 * time.Second,
	HystrixSleepWindow:   time.Second,
	HystrixErrorPercent:  100,
	HystrixMaxConcurrent: 10_000,
	HystrixVolume:        1_000_000,
}

// all is the default of the flag -wrappers. It selects the pair's own stack.
const all = "all"

var (
	wrappers = flag.String("wrappers", all, "client: which of opentracing, limiter, breaker and roundrobin, separated by commas; all: as the pair's client has them")
	metrics  = flag.Bool("metrics", false, "client: serve metrics, as the pair's client does with --metrics_address")
)

func main() {
	gctuning.Apply()
	contender.Main(contender.Contender{Dial: dial})
}

func newRegistry(env contender.Env) (registry.Registry, error) {
	r, err := consul.NewRegistry()
	if err != nil {
		return nil, err
	}
	return r, r.Init(registry.Addrs(env.Registry))
}

func dial(ctx context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	r, err := newRegistry(env)
	if err != nil {
		return nil, nil, err
	}
	var served admin.Settings
	if *metrics {
		served.Address = "127.0.0.1:0"
	}
	operators, err := admin.Listen(served) // listens until the process exits
	if err != nil {
		return nil, nil, err
	}
	var (
		t      opentracing.Tracer = opentracing.NoopTracer{}
		closer io.Closer          = io.NopCloser(nil)
	)
	if env.Spans != "" {
		if t, closer, err = tracer.NewTracer(clientName, env.Spans, tracer.Metrics(operators.Registerer())); err != nil {
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
	// ctx limits only the search for the server. The client still makes calls after ctx has ended.
	calls := context.WithoutCancel(ctx)
	if *wrappers == all {
		service.Init(stack.Options(calls, t, settings, nil, operators.Registerer())...)
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
