package modern

import (
	"context"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Settings are the client's settings. The defaults of the pair's client are in parentheses.
type Settings struct {
	RateLimit     float64       // calls per second (1); 0: no limit
	Timeout       time.Duration // a call that takes longer has failed (1.2 s)
	SleepWindow   time.Duration // how long an open circuit rejects all calls; then it tries one call (2 s)
	ErrorPercent  uint32        // failure rate over the last 10 s, in percent, at which the circuit opens (10)
	Volume        uint32        // calls in the last 10 s before the circuit may open (1)
	MaxConcurrent int64         // the limit of calls in flight; further calls are rejected (2)
}

// serviceConfig configures grpc-go. The client calls the nodes in turn. If an attempt fails with
// UNAVAILABLE, the client retries the call, with up to three attempts in total.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "1s", "backoffMultiplier": 10,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]
}`

// Dial returns a connection to the nodes of service. A call passes the limiter, the breaker, the
// round robin and the tracer. The limiter comes before the breaker, so that the breaker's timeout
// does not include the wait for the limiter.
func Dial(discovery Discovery, service string, s Settings, t trace.TracerProvider, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(discovery.Scheme()+":///"+service, append([]grpc.DialOption{
		grpc.WithResolvers(discovery),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(t), otelgrpc.WithPropagators(Propagator))),
		grpc.WithChainUnaryInterceptor(limit(s), breaker(s)),
	}, opts...)...)
}

// limit returns an interceptor that delays calls, so that at most s.RateLimit calls per second are
// sent.
func limit(s Settings) grpc.UnaryClientInterceptor {
	limiter := rate.NewLimiter(rate.Limit(s.RateLimit), 1)
	if s.RateLimit == 0 {
		limiter = rate.NewLimiter(rate.Inf, 1)
	}
	return func(ctx context.Context, method string, req, rsp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if err := limiter.Wait(ctx); err != nil {
			return fmt.Errorf("waiting for the limiter: %w", err)
		}
		return invoke(ctx, method, req, rsp, cc, opts...)
	}
}

// breaker returns an interceptor that rejects a call if the circuit is open, or if s.MaxConcurrent
// calls are already in flight. It cancels a call after s.Timeout.
func breaker(s Settings) grpc.UnaryClientInterceptor {
	inFlight := semaphore.NewWeighted(s.MaxConcurrent)
	circuit := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
		Interval:     10 * time.Second,
		BucketPeriod: time.Second,
		Timeout:      s.SleepWindow,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= s.Volume && 100*c.TotalFailures >= s.ErrorPercent*c.Requests
		},
		IsSuccessful: func(err error) bool { return !serviceFailed(err) },
	})
	return func(ctx context.Context, method string, req, rsp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if !inFlight.TryAcquire(1) {
			return status.Error(codes.ResourceExhausted, "breaker: max concurrency")
		}
		defer inFlight.Release(1)
		ctx, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		_, err := circuit.Execute(func() (any, error) { return nil, invoke(ctx, method, req, rsp, cc, opts...) })
		return err
	}
}

// serviceFailed reports whether err is a failure of the service. A client error is not a failure of
// the service.
func serviceFailed(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.DataLoss:
		return true
	}
	return false
}
