// Package stack assembles the wrappers that each call of the client goes through.
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

// Retries is the default number of retries of a failed call. If possible, each retry goes to
// another node. So if two of three nodes fail at the same time, a call can still succeed at the
// third node.
const Retries = 2

// Options returns the options that install the stack in a service. It also sets hystrix's defaults,
// for the whole process. After ctx has ended, calls that wait for the limiter are not sent. If
// tlsConfig is nil, the client does not use TLS. Options registers the stack's metrics with r. If r
// is nil, nothing is measured.
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
		// A call passes these wrappers from first to last, and then go-micro's own wrapper, which
		// adds the name of the client to the metadata. The tracer's span covers all attempts of the
		// call, the wait for the limiter, and the rejections of the breaker. The limiter comes
		// before the breaker: otherwise the breaker would count the wait as latency.
		micro.WrapClient(
			m.wrap,
			ocplugin.NewClientWrapper(t),
			limiter.New(ctx, s.RateLimit, m.observeWait),
			breaker.New(hystrixplugin.NewClientWrapper(), s.HystrixMaxConcurrent),
			nodes.Wrap(roundrobin.NewClientWrapper()), // chooses one of the nodes that the selector offers
		),
		// Each attempt of the call passes this wrapper, after the check of the protocol.
		micro.WrapCall(nodes.WrapCall),
	}
}

// callOptions sets the client's request timeout, its retries, and the check of the protocol. It
// reduces the number of retries to the number that fits into the timeouts. It also sets TLS for the
// calls that the balancer leaves to go-micro.
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

// nodeSelector sets the balancer as the client's selector. The selector uses the client's registry.
func nodeSelector(b *balancer.Balancer) micro.Option {
	return func(o *micro.Options) {
		s := b.Selector(selector.Registry(o.Client.Options().Registry))
		_ = o.Client.Init(microclient.Selector(s)) // never fails
	}
}
