// Command client finds the Basis service in Consul and calls its Hello through
// a round robin, a limiter, a circuit breaker and a tracer.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/config/cmd"
	grpcserver "github.com/micro/go-micro/server/grpc"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/uber/jaeger-client-go"

	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/calls"
	"github.com/gomicroexample/basis/client/conns"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/limiter"
	"github.com/gomicroexample/basis/client/nodes"
	"github.com/gomicroexample/basis/client/report"
	"github.com/gomicroexample/basis/client/settings"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/tracer"
)

const (
	clientName  = "go.micro.client.basis"
	serviceName = "go.micro.srv.basis"

	findTimeout  = 700 * time.Millisecond // of each look for a node of the service
	findInterval = 500 * time.Millisecond // between looks, for a client that waits
	maxGrace     = 5 * time.Second        // for calls under way after an interrupt
	retries      = 2                      // by default, each at another node: of three, two may fail at once
)

// ballast counts when the garbage collector asks whether the few MB that are live have
// doubled, so that it runs about a seventh as often. Never touched, it takes no memory;
// the garbage does, up to 20 MB more.
const ballast = 16 << 20

func main() {
	os.Exit(run())
}

func run() int {
	defer runtime.KeepAlive(make([]byte, ballast))
	log.SetOutput(oneline.Writer{Writer: os.Stderr}) // for go-micro and the tracer
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)   // a second interrupt ends the process
	signal.Ignore(syscall.SIGPIPE) // "client | head": writing fails instead

	var s settings.Settings
	service := micro.NewService(
		// First: the options below act on the server and client set here.
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient(microclient.Retries(retries))),
		micro.Registry(consul.NewRegistry()), // at 127.0.0.1:8500
		micro.Broker(cmdline.NewBroker()),    // one that opens no port
		micro.Name(clientName),
		micro.Cmd(cmd.NewCmd(
			cmd.Name("client"),
			cmd.Description("calls Hello of the Basis service and prints the answers"),
		)),
		micro.Flags(s.Flags()...),
	)
	cmdline.Parse(service, func() error {
		return cmp.Or(s.TLS.Check(service.Client().String()), s.Check())
	})
	if err := consul.Err(service.Options().Registry); err != nil {
		return fail(err)
	}

	// A node's address is not in its certificate; the service's name is.
	tlsConfig, err := s.TLS.Config(serviceName)
	if err != nil {
		return fail(err)
	}

	t, closer, err := tracer.NewTracer(clientName, s.JaegerAddress)
	if err != nil {
		return fail(err)
	}
	defer closer.Close() // sends the last spans

	service.Init(stack(t, s, tlsConfig)...)

	if err := find(ctx, service.Client(), s.Wait); err != nil {
		return fail(err)
	}

	basis := proto.NewBasisService(serviceName, service.Client())
	plan := calls.Plan{Requests: s.Requests, Concurrency: s.Concurrency, Grace: min(s.HystrixTimeout, maxGrace)}
	r := report.New(s.Requests, s.Verbose)
	left := calls.Make(ctx, plan, func(ctx context.Context) calls.Result {
		return hello(ctx, t, basis, s.Name)
	}, func(c calls.Result) {
		r.Add(c)
		if r.Err != nil {
			stop() // nobody reads the answers
		}
	})

	if s.Requests != 1 {
		r.Sum()
	}
	switch {
	case r.Err != nil:
		return fail(r.Err)
	case left > 0:
		return fail(fmt.Errorf("interrupted with %d calls under way, after %d", left, r.Made))
	case r.Made < s.Requests:
		return fail(fmt.Errorf("interrupted after %d of %d calls", r.Made, s.Requests))
	case r.Failed > 0:
		return 1
	}
	return 0
}

// find looks for a node of the service, for as long as wait if there is no node or no
// registry yet.
func find(ctx context.Context, c microclient.Client, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for told := false; ; told = true {
		findCtx, cancel := context.WithTimeout(ctx, findTimeout)
		err := nodes.Find(findCtx, c, serviceName)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		if !told {
			fmt.Fprintf(os.Stderr, "client: %s; waiting for up to %v\n", oneline.Escape(err.Error()), wait)
		}
		select {
		case <-time.After(findInterval):
		case <-ctx.Done():
		}
	}
}

// stack is what a call goes through, from the first to the last. The span covers
// the limiter's wait and the breaker's refusals; the breaker neither times the wait
// nor counts it as a call under way. The node is chosen last, for each attempt anew.
// It sets hystrix's defaults, which all circuits have.
func stack(t opentracing.Tracer, s settings.Settings, tlsConfig *tls.Config) []micro.Option {
	hystrix.DefaultTimeout = int(s.HystrixTimeout.Milliseconds())
	hystrix.DefaultSleepWindow = int(s.HystrixSleepWindow.Milliseconds())
	hystrix.DefaultErrorPercentThreshold = s.HystrixErrorPercent
	hystrix.DefaultMaxConcurrent = s.HystrixMaxConcurrent + breaker.Headroom
	hystrix.DefaultVolumeThreshold = s.HystrixVolume
	pool := conns.New(tlsConfig)
	return []micro.Option{
		callOptions(s.HystrixTimeout, tlsConfig),
		micro.WrapClient(
			ocplugin.NewClientWrapper(t),
			limiter.New(s.RateLimit),
			breaker.Guard(hystrixplugin.NewClientWrapper(), s.HystrixMaxConcurrent),
			nodes.RandomStart(roundrobin.NewClientWrapper()),
			pool.Prefer,
		),
		micro.WrapCall(nodes.Call, pool.Call),
	}
}

// callOptions sets which failures are tried again, a request timeout that is not
// shorter than the breaker's, and TLS for calls that would not take the pool.
func callOptions(timeout time.Duration, config *tls.Config) micro.Option {
	return func(o *micro.Options) {
		opts := []microclient.Option{microclient.Retry(failure.Retry)}
		// Which a flag may have set too; that cannot be told apart.
		if o.Client.Options().CallOptions.RequestTimeout == microclient.DefaultRequestTimeout {
			opts = append(opts, microclient.RequestTimeout(max(timeout, microclient.DefaultRequestTimeout)))
		}
		if config != nil {
			opts = append(opts, grpcclient.AuthTLS(config))
		}
		_ = o.Client.Init(opts...) // never fails
	}
}

// hello makes one call, in a trace of its own.
func hello(ctx context.Context, t opentracing.Tracer, basis proto.BasisService, name string) calls.Result {
	span := t.StartSpan("call")
	defer span.Finish()
	ctx, last := nodes.Watch(opentracing.ContextWithSpan(ctx, span))

	span.SetTag("req", oneline.Escape(name))
	start := time.Now()
	rsp, err := basis.Hello(ctx, &proto.Request{Name: name})
	r := calls.Result{Answer: rsp.GetMsg(), Err: err, Start: start, Latency: time.Since(start)}
	if a := last.Load(); a != nil {
		r.Node, r.Waited = a.Address, a.Sent.Sub(start)
	}
	if err != nil {
		span.SetTag("err", oneline.Escape(err.Error()))
		ext.Error.Set(span, true)
	} else {
		span.SetTag("resp", oneline.Escape(r.Answer))
	}
	if sc, ok := span.Context().(jaeger.SpanContext); ok {
		r.Trace = sc.TraceID().String()
	}
	return r
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "client: %s\n", oneline.Escape(err.Error()))
	return 1
}
