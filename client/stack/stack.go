// Package stack puts together what a call of the client goes through.
package stack

import (
	"context"
	"crypto/tls"

	"github.com/afex/hystrix-go/hystrix"
	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	hystrixplugin "github.com/micro/go-plugins/wrapper/breaker/hystrix"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/limiter"
)

// Retries is how often a failed call is retried by default, each time at another node:
// of three nodes, two may fail at once.
const Retries = 2

// Options returns the options that install the stack in a service. It sets hystrix's
// defaults for the whole process. No call that waits for the limiter is sent once ctx
// has ended. The client uses TLS unless tlsConfig is nil. The stack's metrics are registered
// with r; with a nil r, nothing is measured.
func Options(ctx context.Context, t opentracing.Tracer, s flags.Settings, tlsConfig *tls.Config, r prometheus.Registerer) []micro.Option {
	hystrix.DefaultTimeout = int(s.HystrixTimeout.Milliseconds())
	hystrix.DefaultSleepWindow = int(s.HystrixSleepWindow.Milliseconds())
	hystrix.DefaultErrorPercentThreshold = s.HystrixErrorPercent
	hystrix.DefaultMaxConcurrent = s.HystrixMaxConcurrent + breaker.Headroom
	hystrix.DefaultVolumeThreshold = s.HystrixVolume
	m := newMetrics(r)
	nodes := balancer.New(tlsConfig, m.dialOptions()...)
	m.observe(nodes)
	return []micro.Option{
		callOptions(s, tlsConfig),
		nodeSelector(nodes),
		// A call passes these from the first to the last. The span covers the limiter's
		// wait and the breaker's rejections. The limiter is outside of the breaker, which
		// would take the wait for latency.
		micro.WrapClient(
			m.wrap,
			ocplugin.NewClientWrapper(t),
			limiter.New(ctx, s.RateLimit, m.observeWait),
			breaker.New(hystrixplugin.NewClientWrapper(), s.HystrixMaxConcurrent),
			nodes.Wrap(roundrobin.NewClientWrapper()), // which chooses from the nodes that the selector offers
		),
		// And each attempt of the call passes this.
		micro.WrapCall(nodes.WrapCall),
	}
}

// callOptions sets the request timeout, which errors are retried and how often, as far as
// that fits into the timeouts, and TLS for calls that the balancer leaves to go-micro.
func callOptions(s flags.Settings, tlsConfig *tls.Config) micro.Option {
	return func(o *micro.Options) {
		opts := []microclient.Option{
			microclient.Retry(failure.Retry),
			microclient.Retries(min(o.Client.Options().CallOptions.Retries, s.MaxRetries())),
			microclient.RequestTimeout(s.CallTimeout()),
			microclient.WrapCall(protocol(o.Client.String())),
		}
		if tlsConfig != nil {
			opts = append(opts, grpcclient.AuthTLS(tlsConfig))
		}
		_ = o.Client.Init(opts...) // never fails
	}
}

// nodeSelector makes the balancer the client's selector, on the client's registry.
func nodeSelector(b *balancer.Balancer) micro.Option {
	return func(o *micro.Options) {
		s := b.Selector(selector.Registry(o.Client.Options().Registry))
		_ = o.Client.Init(microclient.Selector(s)) // never fails
	}
}
