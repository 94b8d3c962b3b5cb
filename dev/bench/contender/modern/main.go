// Command modern runs the server and the client of dev/modern in the bench. Both use grpc-go with a
// resolver for Consul and grpc-go's round robin, golang.org/x/time/rate, gobreaker and
// OpenTelemetry.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/modern"
)

// settings has such high limits that the limiter and the breaker reject no call. The limiter and
// the breaker still check every call.
var settings = modern.Settings{
	RateLimit:     1_000_000,
	Timeout:       10 * time.Second,
	SleepWindow:   time.Second,
	ErrorPercent:  100,
	Volume:        1_000_000,
	MaxConcurrent: 10_000,
}

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
	s := modern.NewServer(provider, 0, env.ServerOptions()...)
	context.AfterFunc(ctx, s.GracefulStop)
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return err
	}
	deregister, err := modern.Register(consul, env.Service, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, deregister()) }()
	ready(address)
	return s.Serve(listener)
}

func dial(_ context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	provider, flush, err := modern.NewTracing(env.Service+".client", env.Spans)
	if err != nil {
		return nil, nil, err
	}
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return nil, nil, err
	}
	conn, err := modern.Dial(modern.Discovery{Consul: consul}, env.Service, settings, provider, env.DialOptions()...)
	if err != nil {
		return nil, nil, err
	}
	tracer := provider.Tracer("basis")
	return func(ctx context.Context, name string) (string, error) {
		answer, _, err := modern.Hello(ctx, tracer, conn, name)
		return answer, err
	}, contender.Closer(flush), nil
}
