package metrics

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health/grpc_health_v1" // its descriptor
	"google.golang.org/grpc/status"

	_ "github.com/gomicroexample/basis/proto" // its descriptor
)

type stream struct{ grpc.ServerStream }

func (stream) Context() context.Context { return context.Background() }

var services = []string{"proto.Basis", "grpc.health.v1.Health"}

func call(t *testing.T, interceptor grpc.StreamServerInterceptor, method string, err error) {
	t.Helper()
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: true, IsServerStream: true} // as go-micro's
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
	require.NoError(t, testutil.GatherAndCompare(r, expected(`
grpc_server_handled_total{grpc_code="OK",grpc_method="Hello",grpc_service="proto.Basis",grpc_type="unary"} 2
grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Hello",grpc_service="proto.Basis",grpc_type="unary"} 1
grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="grpc.health.v1.Health",grpc_type="server_stream"} 1
`), "grpc_server_handled_total"))
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
	require.NoError(t, testutil.GatherAndCompare(r, expected(`
grpc_server_handled_total{grpc_code="Unimplemented",grpc_method="unknown",grpc_service="unknown",grpc_type="unary"} 3008
`), "grpc_server_handled_total"))
}

func TestWithoutARegistererCallsPass(t *testing.T) {
	call(t, NewInterceptor(nil, services...), "/proto.Basis/Hello", io.ErrUnexpectedEOF)
}

func expected(lines string) io.Reader {
	return strings.NewReader("# HELP grpc_server_handled_total Total number of RPCs completed on the server, regardless of success or failure.\n" +
		"# TYPE grpc_server_handled_total counter" + lines)
}
