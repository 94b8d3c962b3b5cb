package metrics

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health/grpc_health_v1" // for the service's descriptor
	"google.golang.org/grpc/status"

	_ "github.com/gomicroexample/basis/proto" // for the service's descriptor
)

type stream struct{ grpc.ServerStream }

func (stream) Context() context.Context { return context.Background() }

var services = []string{"proto.Basis", "grpc.health.v1.Health"}

func call(t *testing.T, interceptor grpc.StreamServerInterceptor, method string, err error) {
	t.Helper()
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: true, IsServerStream: true} // as in go-micro's server
	got := interceptor(nil, stream{}, info, func(any, grpc.ServerStream) error { return err })
	require.Equal(t, err, got)
}

func TestCallsAreCountedByMethodAndCode(t *testing.T) {
	r := prometheus.NewRegistry()
	interceptor := NewInterceptor(r, services...)
	call(t, interceptor, "/go.micro.srv.basis.Basis/Hello", nil)
	call(t, interceptor, "/proto.Basis/Hello", nil)
	call(t, interceptor, "/Basis/Hello", status.Error(codes.InvalidArgument, "no"))
	call(t, interceptor, "/grpc.health.v1.Health/Watch", nil)
	require.Equal(t, map[string]float64{
		"unary proto.Basis/Hello OK":                   2,
		"unary proto.Basis/Hello InvalidArgument":      1,
		"server_stream grpc.health.v1.Health/Watch OK": 1,
	}, handled(t, r))
	count, err := testutil.GatherAndCount(r, "grpc_server_handling_seconds")
	require.NoError(t, err)
	require.Equal(t, 2, count)
}

func TestUnknownMethodsAreOneLabelValue(t *testing.T) {
	r := prometheus.NewRegistry()
	interceptor := NewInterceptor(r, services...)
	no := status.Error(codes.Unimplemented, "no")
	for i := range 1000 {
		call(t, interceptor, fmt.Sprintf("/made.Up%d/Hello", i), no)
		call(t, interceptor, fmt.Sprintf("/proto.Basis/Hello%d", i), no)
		call(t, interceptor, fmt.Sprintf("/proto.Basis/Hello/%d", i), no)
	}
	for _, odd := range []string{"", "/", "//", "Basis", "/.", "/./", "/proto.Basis", "/proto.Basis/"} {
		call(t, interceptor, odd, no)
	}
	require.Equal(t, map[string]float64{"unary unknown/unknown Unimplemented": 3008}, handled(t, r))
}

func TestWithoutARegistererCallsPass(t *testing.T) {
	call(t, NewInterceptor(nil, services...), "/proto.Basis/Hello", io.ErrUnexpectedEOF)
}

// handled returns the values of grpc_server_handled_total that are not 0. The keys are
// "type service/method code".
func handled(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "grpc_server_handled_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if n := m.GetCounter().GetValue(); n > 0 {
				counts[labels["grpc_type"]+" "+labels["grpc_service"]+"/"+labels["grpc_method"]+" "+labels["grpc_code"]] = n
			}
		}
	}
	return counts
}
