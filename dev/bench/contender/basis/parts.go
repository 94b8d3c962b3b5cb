package main

import (
	"context"
	"slices"
	"strings"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/limiter"
)

// parts returns the same options as stack.Options, but only with the wrappers in names. Commas
// separate the names. The balancer is always active. Without roundrobin, go-micro's own strategy
// chooses among the nodes that the balancer offers. TestPartsAreOfTheStack in ../.. compares the
// wrappers with the wrappers of the stack.
func parts(ctx context.Context, t opentracing.Tracer, s flags.Settings, names string) []micro.Option {
	hystrix.DefaultTimeout = int(s.HystrixTimeout.Milliseconds())
	hystrix.DefaultMaxConcurrent = s.HystrixMaxConcurrent + breaker.Headroom
	nodes := balancer.New(nil)
	var chosen []microclient.Wrapper
	for _, w := range []struct {
		name          string
		with, without microclient.Wrapper
	}{
		{"opentracing", ocplugin.NewClientWrapper(t), unwrapped},
		{"limiter", limiter.New(ctx, s.RateLimit, nil), unwrapped},
		{"breaker", breaker.New(hystrixplugin.NewClientWrapper(), s.HystrixMaxConcurrent), unwrapped},
		{"roundrobin", nodes.Wrap(roundrobin.NewClientWrapper()), nodes.Wrap(unwrapped)},
	} {
		if slices.Contains(strings.Split(names, ","), w.name) {
			chosen = append(chosen, w.with)
		} else {
			chosen = append(chosen, w.without)
		}
	}
	return []micro.Option{
		func(o *micro.Options) {
			_ = o.Client.Init( // never fails
				microclient.Retry(failure.Retry),
				microclient.RequestTimeout(s.HystrixTimeout),
				microclient.Selector(nodes.Selector(selector.Registry(o.Client.Options().Registry))),
			)
		},
		micro.WrapClient(chosen...),
		micro.WrapCall(nodes.WrapCall),
	}
}

// unwrapped is a wrapper that returns the client without a change.
func unwrapped(c microclient.Client) microclient.Client { return c }
