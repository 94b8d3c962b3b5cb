package stack

import (
	"context"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	microclient "github.com/micro/go-micro/client"
	"github.com/prometheus/client_golang/prometheus"
	ggrpc "google.golang.org/grpc"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/breaker"
	"github.com/gomicroexample/basis/client/failure"
)

// buckets are the upper bounds of histograms, in seconds. A call within a data center takes
// less than a millisecond; hystrix_timeout is 1.2 s by default.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10}

// metrics measures what passes the stack. A nil *metrics measures nothing.
type metrics struct {
	registerer prometheus.Registerer
	calls      *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	waits      prometheus.Histogram
	attempts   *grpcprom.ClientMetrics
}

// newMetrics registers the metrics of a stack with r; with a nil r it returns nil.
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
			Buckets: buckets,
		}, []string{"service", "endpoint"}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "basis_limiter_wait_seconds",
			Help:    "How long calls waited for the limiter.",
			Buckets: buckets,
		}),
		attempts: grpcprom.NewClientMetrics(grpcprom.WithClientHandlingTimeHistogram(grpcprom.WithHistogramBuckets(buckets))),
	}
	r.MustRegister(m.calls, m.durations, m.waits, m.attempts, breaker.Collector())
	return m
}

// observe has m collect the metrics of the balancer.
func (m *metrics) observe(b *balancer.Balancer) {
	if m != nil {
		m.registerer.MustRegister(b)
	}
}

// dialOptions measures attempts, as gRPC sees them.
func (m *metrics) dialOptions() []ggrpc.DialOption {
	if m == nil {
		return nil
	}
	return []ggrpc.DialOption{ggrpc.WithChainUnaryInterceptor(m.attempts.UnaryClientInterceptor())}
}

// observeWait measures a wait for the limiter.
func (m *metrics) observeWait(d time.Duration) {
	if m != nil {
		m.waits.Observe(d.Seconds())
	}
}

// wrap is a client wrapper that counts calls.
func (m *metrics) wrap(c microclient.Client) microclient.Client {
	if m == nil {
		return c
	}
	return &countingClient{c, m}
}

type countingClient struct {
	microclient.Client
	metrics *metrics
}

func (c *countingClient) Call(ctx context.Context, req microclient.Request, rsp any, opts ...microclient.CallOption) error {
	start := time.Now()
	err := c.Client.Call(ctx, req, rsp, opts...)
	c.metrics.durations.WithLabelValues(req.Service(), req.Endpoint()).Observe(time.Since(start).Seconds())
	c.metrics.calls.WithLabelValues(req.Service(), req.Endpoint(), failure.Of(err).String()).Inc()
	return err
}
