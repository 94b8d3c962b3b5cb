package stack

import (
	"context"
	"sync"
	"time"

	microclient "github.com/micro/go-micro/client"
	"github.com/prometheus/client_golang/prometheus"
	ggrpc "google.golang.org/grpc"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/internal/grpcmetrics"
)

// metrics measures the calls that pass the stack. A nil *metrics measures nothing.
type metrics struct {
	registerer prometheus.Registerer
	calls      *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	waits      prometheus.Histogram
	attempts   *grpcmetrics.Calls

	methods sync.Map // maps a method to its *methodMetrics
}

// method is a method of a service.
type method struct{ service, endpoint string }

// methodMetrics are the metrics of the calls of one method.
type methodMetrics struct {
	duration prometheus.Observer
	outcomes [failure.Other + 1]prometheus.Counter
}

// newMetrics creates the metrics of a stack and registers them with r. If r is nil, newMetrics
// returns nil.
func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		registerer: r,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "basis_calls_total",
			Help: "Calls, each with all its waits and attempts, by outcome.",
		}, []string{"service", "endpoint", "outcome"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "basis_call_duration_seconds",
			Help:    "How long calls took, each with all its waits and attempts.",
			Buckets: grpcmetrics.Buckets,
		}, []string{"service", "endpoint"}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "basis_limiter_wait_seconds",
			Help:    "How long calls waited for the limiter.",
			Buckets: grpcmetrics.Buckets,
		}),
		attempts: grpcmetrics.NewClient(),
	}
	r.MustRegister(m.calls, m.durations, m.waits, m.attempts, breaker.Collector())
	return m
}

// observe registers b, which collects its own metrics.
func (m *metrics) observe(b *balancer.Balancer) {
	if m != nil {
		m.registerer.MustRegister(b)
	}
}

// dialOptions returns the gRPC options that measure attempts.
func (m *metrics) dialOptions() []ggrpc.DialOption {
	if m == nil {
		return nil
	}
	return []ggrpc.DialOption{ggrpc.WithChainUnaryInterceptor(m.attempts.UnaryClientInterceptor)}
}

// observeWait records d, the time that a call waited for the limiter.
func (m *metrics) observeWait(d time.Duration) {
	if m != nil {
		m.waits.Observe(d.Seconds())
	}
}

// wrap is a client wrapper that counts calls and measures their durations.
func (m *metrics) wrap(c microclient.Client) microclient.Client {
	if m == nil {
		return c
	}
	return &countingClient{c, m}
}

// forMethod returns the metrics of a method. At the method's first call, it creates the counters of
// all outcomes, with value 0. Prometheus does not count the first value of a counter as an
// increase. If a counter started at 1, Prometheus would miss the first call.
func (m *metrics) forMethod(key method) *methodMetrics {
	if found, ok := m.methods.Load(key); ok {
		return found.(*methodMetrics)
	}
	made := &methodMetrics{duration: m.durations.WithLabelValues(key.service, key.endpoint)}
	for o := range made.outcomes {
		made.outcomes[o] = m.calls.WithLabelValues(key.service, key.endpoint, failure.Outcome(o).String())
	}
	m.methods.Store(key, made) // another goroutine may have stored the same metrics
	return made
}

type countingClient struct {
	microclient.Client
	metrics *metrics
}

func (c *countingClient) Call(ctx context.Context, req microclient.Request, rsp any, opts ...microclient.CallOption) error {
	m := c.metrics.forMethod(method{req.Service(), req.Endpoint()})
	start := time.Now()
	err := c.Client.Call(ctx, req, rsp, opts...)
	m.duration.Observe(time.Since(start).Seconds())
	m.outcomes[failure.Of(err)].Inc()
	return err
}
