// Command client calls the Basis service with grpc-go, gobreaker and OpenTelemetry. Its output has
// the format of the pair's client.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/modern"
)

func main() {
	failed, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "client: %v\n", err)
	}
	if err != nil || failed {
		os.Exit(1)
	}
}

func run() (failed bool, err error) {
	registry := flag.String("registry_address", "", "`host:port` of Consul; without it, the one in CONSUL_HTTP_ADDR, or 127.0.0.1:8500")
	otlp := flag.String("otlp_address", "127.0.0.1:4317", "`host:port` of Jaeger's OTLP receiver (gRPC)")
	name := flag.String("name", "John", "who to greet")
	requests := flag.Int("requests", 1, "how many calls; 0: until interrupted")
	concurrency := flag.Int("concurrency", 1, "how many callers make them")
	verbose := flag.Bool("verbose", false, "print a line for each call on stderr")
	var s modern.Settings
	flag.Float64Var(&s.RateLimit, "rate_limit", 1, "calls a second; 0: no limit")
	flag.DurationVar(&s.Timeout, "breaker_timeout", 1200*time.Millisecond, "a call that takes longer has failed")
	flag.DurationVar(&s.SleepWindow, "breaker_sleep_window", 2*time.Second, "how long an open circuit rejects before it lets one call try")
	percent := flag.Uint("breaker_error_percent", 10, "failure rate over the last 10 s, in percent, at which the circuit opens")
	volume := flag.Uint("breaker_volume", 1, "calls in the last 10 s before the circuit may open")
	flag.Int64Var(&s.MaxConcurrent, "breaker_max_concurrent", 2, "calls in flight; more are rejected")
	flag.Parse()
	s.ErrorPercent, s.Volume = uint32(*percent), uint32(*volume)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	provider, flush, err := modern.NewTracing("modern.client.basis", *otlp)
	if err != nil {
		return false, err
	}
	defer func() { _ = flush() }() // ignore an error: lost spans do not make a call fail
	consul, err := api.NewClient(&api.Config{Address: *registry})
	if err != nil {
		return false, err
	}
	conn, err := modern.Dial(modern.Discovery{Consul: consul}, modern.ServiceName, s, provider)
	if err != nil {
		return false, err
	}
	defer conn.Close()

	tracer, report := provider.Tracer("basis"), load.NewReport(*requests, *verbose)
	plan := load.Plan{Requests: *requests, Concurrency: *concurrency, Grace: s.Timeout}
	load.Run(ctx, plan, func(ctx context.Context) load.Result {
		var p peer.Peer
		r := load.Result{Start: time.Now()}
		r.Answer, r.Trace, r.Err = modern.Hello(ctx, tracer, conn, *name, grpc.Peer(&p))
		r.Latency = time.Since(r.Start)
		if p.Addr != nil {
			r.Node = p.Addr.String()
		}
		return r
	}, report.Add)
	if *requests != 1 {
		report.Summarize()
	}
	return report.Failed > 0, report.Err
}
