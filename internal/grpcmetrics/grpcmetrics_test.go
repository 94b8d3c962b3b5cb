package grpcmetrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	provider "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// outcomes are results that a call may return.
var outcomes = []error{
	nil, status.Error(codes.NotFound, "no"), fmt.Errorf("around: %w", status.Error(codes.Aborted, "no")),
	errors.New("no"), context.Canceled, fmt.Errorf("around: %w", context.DeadlineExceeded), io.EOF,
}

// values returns the value of each counter and the number of observations of each histogram, by
// name, type and labels. It leaves out zeros.
func values(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	require.NoError(t, err)
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()); n > 0 {
				all[fmt.Sprint(family.GetName(), family.GetType(), m.GetLabel())] = n
			}
		}
	}
	return all
}

func TestClientHasTheValuesOfGoGRPCMiddleware(t *testing.T) {
	theirs := provider.NewClientMetrics(provider.WithClientHandlingTimeHistogram(provider.WithHistogramBuckets(Buckets)))
	ours := NewClient()
	for _, intercept := range []grpc.UnaryClientInterceptor{theirs.UnaryClientInterceptor(), ours.UnaryClientInterceptor} {
		for i, outcome := range outcomes {
			method := fmt.Sprintf("/proto.Basis/Hello%d", i%2)
			invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return outcome }
			require.Equal(t, outcome, intercept(context.Background(), method, nil, nil, nil, invoke))
		}
	}
	require.NotEmpty(t, values(t, ours))
	require.Equal(t, values(t, theirs), values(t, ours))
}

// stream is a stream whose first RecvMsg succeeds. Later calls of RecvMsg return io.EOF, like a
// stream that its client has closed. The first SendMsg succeeds, and later calls of SendMsg fail.
type stream struct {
	grpc.ServerStream
	received, sent bool
}

func (s *stream) Context() context.Context { return context.Background() }

func (s *stream) RecvMsg(any) error {
	if s.received {
		return io.EOF
	}
	s.received = true
	return nil
}

func (s *stream) SendMsg(any) error {
	if s.sent {
		return status.Error(codes.Unavailable, "gone")
	}
	s.sent = true
	return nil
}

// talk receives until RecvMsg fails, and then sends until SendMsg fails.
func talk(s grpc.ServerStream) {
	for s.RecvMsg(nil) == nil {
	}
	for s.SendMsg(nil) == nil {
	}
}

func TestServerHasTheValuesOfGoGRPCMiddleware(t *testing.T) {
	theirs := provider.NewServerMetrics(provider.WithServerHandlingTimeHistogram(provider.WithHistogramBuckets(Buckets)))
	ours := NewServer()
	intercept := theirs.StreamServerInterceptor()
	for _, m := range []Method{
		{"/proto.Basis/Up", true, false}, {"/proto.Basis/Down", false, true}, {"/proto.Basis/Both", true, true},
	} {
		for _, outcome := range outcomes {
			info := &grpc.StreamServerInfo{FullMethod: m.FullName, IsClientStream: m.ClientStreams, IsServerStream: m.ServerStreams}
			err := intercept(nil, &stream{}, info, func(_ any, s grpc.ServerStream) error { talk(s); return outcome })
			require.Equal(t, outcome, err)
			err = ours.Serve(m, &stream{}, func(s grpc.ServerStream) error { talk(s); return outcome })
			require.Equal(t, outcome, err)
		}
	}
	require.NotEmpty(t, values(t, ours))
	require.Equal(t, values(t, theirs), values(t, ours))
}

// Serve handles a unary method as a stream. go-grpc-middleware handles a unary method as a
// function.
func TestServerHasTheValuesOfGoGRPCMiddlewareForUnaryMethods(t *testing.T) {
	theirs := provider.NewServerMetrics(provider.WithServerHandlingTimeHistogram(provider.WithHistogramBuckets(Buckets)))
	ours := NewServer()
	intercept := theirs.UnaryServerInterceptor()
	for _, outcome := range outcomes {
		_, err := intercept(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/proto.Basis/Hello"},
			func(context.Context, any) (any, error) { return nil, outcome })
		require.Equal(t, outcome, err)
		err = ours.Serve(Method{FullName: "/proto.Basis/Hello"}, &stream{}, func(s grpc.ServerStream) error {
			_ = s.RecvMsg(nil)
			if outcome == nil {
				_ = s.SendMsg(nil)
			}
			return outcome
		})
		require.Equal(t, outcome, err)
	}
	require.NotEmpty(t, values(t, ours))
	require.Equal(t, values(t, theirs), values(t, ours))
}

func TestEachCodeIsThereFromTheFirstCallOn(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	c := NewClient()
	r.MustRegister(c)
	require.Error(t, r.Register(NewClient()), "two collectors with the same names")
	hello := Method{FullName: "/proto.Basis/Hello"}
	require.Same(t, c.metricsFor(hello), c.metricsFor(hello), "looked up twice")
	families, err := r.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "grpc_client_handled_total" {
			require.Len(t, family.GetMetric(), int(codes.Unauthenticated)+1)
			return
		}
	}
	require.Fail(t, "grpc_client_handled_total is not there")
}

func TestCodesThatGRPCDoesNotHaveAreUnknown(t *testing.T) {
	c := NewServer()
	require.Error(t, c.Serve(Method{FullName: "/proto.Basis/Hello"}, &stream{}, func(grpc.ServerStream) error { return status.Error(999, "odd") }))
	require.Equal(t, 1.0, testutil.ToFloat64(c.metricsFor(Method{FullName: "/proto.Basis/Hello"}).handled[codes.Unknown]))
}

func TestManyGoroutinesMayCall(t *testing.T) {
	c := NewServer()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				_ = c.Serve(Method{FullName: fmt.Sprintf("/proto.Basis/Hello%d", i)}, &stream{}, func(grpc.ServerStream) error { return nil })
			}
		})
	}
	wg.Wait()
	sum := 0.0
	for _, n := range values(t, c) {
		sum += n
	}
	require.Equal(t, 3*800.0, sum, "started, handled, handling")
}
