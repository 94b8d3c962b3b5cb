// Package metrics counts the calls of go-micro's gRPC server for Prometheus.
package metrics

import (
	"context"
	"fmt"
	"strings"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// buckets are the upper bounds of histograms, in seconds. Hello takes a fraction of a
// millisecond; callers wait for 5 s by default.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10}

// unknown is the method of all calls that name no method of the server. Callers make up
// names, and each label value takes memory for as long as the process runs.
var unknown = &grpc.StreamServerInfo{FullMethod: "/unknown/unknown"}

// NewInterceptor returns a stream interceptor that counts and times calls, with the names that
// go-grpc-middleware gives its metrics (grpc_server_handled_total and others), and registers
// them with r. With a nil r, the interceptor only passes calls on.
//
// services are the full names of the server's services, as their .proto files have them. The
// generated code of each has to be linked. go-micro finds its handlers by the last part of a service's name: a call to
// go.micro.srv.basis.Basis and one to proto.Basis arrive at the same handler. Both are
// counted under the name in services.
//
// The interceptor has to come before those that answer calls themselves.
func NewInterceptor(r prometheus.Registerer, services ...string) grpc.StreamServerInterceptor {
	if r == nil {
		return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, stream)
		}
	}
	calls := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(grpcprom.WithHistogramBuckets(buckets)))
	r.MustRegister(calls)
	methods := map[string]*grpc.StreamServerInfo{}
	for _, service := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			panic(fmt.Sprintf("metrics: service %s: %v", service, err))
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			m := all.Get(i)
			known := &grpc.StreamServerInfo{
				FullMethod:     "/" + service + "/" + string(m.Name()),
				IsClientStream: m.IsStreamingClient(), IsServerStream: m.IsStreamingServer(),
			}
			methods[known.FullMethod] = known
			methods[short(known.FullMethod)] = known
		}
	}
	count, countUnary := calls.StreamServerInterceptor(), calls.UnaryServerInterceptor()
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		known := methods[info.FullMethod]
		if known == nil {
			known = methods[short(info.FullMethod)]
		}
		if known == nil {
			known = unknown
		}
		if known.IsClientStream || known.IsServerStream {
			return count(srv, stream, known, handler)
		}
		// go-micro serves each call as a stream; most are of one message and one answer.
		_, err := countUnary(stream.Context(), nil, &grpc.UnaryServerInfo{FullMethod: known.FullMethod},
			func(context.Context, any) (any, error) { return nil, handler(srv, stream) })
		return err
	}
}

// short returns Service/Method for /any.prefix.Service/Method.
func short(fullMethod string) string {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return service[strings.LastIndexByte(service, '.')+1:] + "/" + method
}
