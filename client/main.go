// Command client finds the Basis service in Consul and calls its method Hello. Each call passes a
// tracer, a rate limiter, a circuit breaker and a round robin.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/config/cmd"
	"github.com/micro/go-micro/registry"
	grpcserver "github.com/micro/go-micro/server/grpc"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/uber/jaeger-client-go"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/internal/admin"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/gctuning"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/tracer"
)

const (
	clientName  = "go.micro.client.basis"
	serviceName = "go.micro.srv.basis"

	findTimeout  = 700 * time.Millisecond  // time limit of each search for a node of the service
	findInterval = 500 * time.Millisecond  // pause between searches
	electionTime = 1500 * time.Millisecond // minimum wait for Consul's servers, which elect a leader within about 1 s
	maxGrace     = 5 * time.Second         // longest wait for calls in flight after an interrupt
)

func main() {
	os.Exit(run())
}

func run() int {
	gctuning.Apply()
	log.SetOutput(oneline.Writer{Writer: os.Stderr}) // for go-micro and the tracer

	var (
		s  flags.Settings
		as admin.Settings
	)
	consulRegistry, consulErr := consul.NewRegistry() // at 127.0.0.1:8500
	service := micro.NewService(
		// These two come first: the options below change the server and the client.
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient(microclient.Retries(stack.Retries))),
		micro.Registry(consulRegistry),
		micro.Broker(cmdline.NewBroker()), // opens no port
		micro.Name(clientName),
		micro.Cmd(cmd.NewCmd(
			cmd.Name("client"),
			cmd.Description("calls Hello of the Basis service and prints the answers"),
		)),
		micro.Flags(s.Flags()...),
		micro.Flags(as.Flags()...),
	)
	cmdline.Parse(service, cmdline.Client, func(given func(flag string) bool) error {
		err := cmp.Or(s.TLS.Check(service.Client().String()), s.Check(), as.Check())
		call := service.Client().Options().CallOptions
		if given("client_request_timeout") {
			s.RequestTimeout = call.RequestTimeout
		}
		if given("client_retries") {
			err = cmp.Or(err, s.CheckRetries(call.Retries))
		}
		return err
	})
	if as.HealthCheck {
		return askHealth(as)
	}
	if service.Options().Registry == consulRegistry && consulErr != nil {
		return fail(consulErr)
	}

	// A node's certificate contains the service's name, and not the node's address.
	tlsConfig, err := s.TLS.Config(serviceName)
	if err != nil {
		return fail(err)
	}

	operators, err := admin.Listen(as)
	if err != nil {
		return fail(err)
	}
	defer operators.Close()
	operators.Handle("GET /hystrix.stream", http.HandlerFunc(breaker.Stream))

	t, closer, err := tracer.NewTracer(clientName, s.JaegerAddress, tracer.Metrics(operators.Registerer()))
	if err != nil {
		return fail(err)
	}
	defer closer.Close() // sends the last spans

	// From here on, an interrupt ends ctx. After an interrupt, no more calls are sent, and calls in
	// flight may finish. A second interrupt ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	signal.Ignore(syscall.SIGPIPE) // in "client | head", a write then fails, and does not end the process

	service.Init(stack.Options(ctx, t, s, tlsConfig, operators.Registerer())...)

	if err := find(ctx, service.Client(), s.Wait); err != nil {
		return fail(err)
	}
	operators.SetHealth(nil)
	context.AfterFunc(ctx, func() { operators.SetHealth(errors.New("stopping")) })

	basis := proto.NewBasisService(serviceName, service.Client())
	plan := load.Plan{Requests: s.Requests, Concurrency: s.Concurrency, Grace: min(s.HystrixTimeout, maxGrace)}
	report := load.NewReport(s.Requests, s.Verbose)
	inFlight := load.Run(ctx, plan, func(ctx context.Context) load.Result {
		return hello(ctx, t, basis, s.Name)
	}, func(r load.Result) {
		report.Add(r)
		if report.Err != nil {
			stop() // the answers can no longer be written
		}
	})

	if s.Requests != 1 {
		report.Summarize()
	}
	switch {
	case report.Err != nil:
		return fail(report.Err)
	case inFlight > 0:
		return fail(fmt.Errorf("interrupted with %d calls in flight, after %d", inFlight, report.Made))
	case report.Made < s.Requests:
		return fail(fmt.Errorf("interrupted after %d of %d calls", report.Made, s.Requests))
	case report.Failed > 0:
		return 1
	}
	return 0
}

// askHealth prints the health of another client. It returns the exit status.
func askHealth(as admin.Settings) int {
	answer, err := as.AskHealth()
	if err != nil {
		return fail(err)
	}
	fmt.Print(answer)
	return 0
}

// find searches for a node of the service, for at most the duration wait. If Consul has no leader
// or the registry does not answer in time, find searches for at least electionTime.
func find(ctx context.Context, c microclient.Client, wait time.Duration) error {
	start := time.Now()
	for reported := false; ; {
		findCtx, cancel := context.WithTimeout(ctx, findTimeout)
		err := balancer.Find(findCtx, c, serviceName)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return errors.New("interrupted")
		}
		patience := wait
		if consul.Electing(err) || err == context.DeadlineExceeded {
			patience = max(wait, electionTime)
		}
		err = explain(c.Options().Registry, err)
		if time.Since(start) > patience {
			return err
		}
		if wait > 0 && !reported {
			reported = true
			fmt.Fprintf(os.Stderr, "client: %s; waiting for up to %v\n", oneline.Escape(err.Error()), wait)
		}
		select {
		case <-time.After(findInterval):
		case <-ctx.Done():
		}
	}
}

// explain turns err into an error that says why r has no node of the service, and what to do.
func explain(r registry.Registry, err error) error {
	switch err {
	case balancer.ErrNoNode:
		return fmt.Errorf(`no node of %s is registered in %s; start one with "go run ./srv"`, serviceName, consul.Place(r))
	case context.DeadlineExceeded:
		return consul.Explain(r, errors.New("no answer in time"))
	}
	return consul.Explain(r, err)
}

// hello makes one call, in its own trace.
func hello(ctx context.Context, t opentracing.Tracer, basis proto.BasisService, name string) load.Result {
	span := t.StartSpan("call")
	defer span.Finish()
	ctx, last := balancer.RecordAttempt(opentracing.ContextWithSpan(ctx, span))

	span.SetTag("req", oneline.Escape(name))
	start := time.Now()
	rsp, err := basis.Hello(ctx, &proto.Request{Name: name})
	r := load.Result{Answer: rsp.GetMsg(), Err: err, Start: start, Latency: time.Since(start)}
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
		if !sc.IsSampled() { // Jaeger does not receive the trace
			r.Trace = load.Unsampled
		}
	}
	return r
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "client: %s\n", oneline.Escape(err.Error()))
	return 1
}
