// Package metrics counts the calls of go-micro's gRPC server for Prometheus.
package metrics

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/gomicroexample/basis/internal/grpcmetrics"
)

// unknown is the method under which calls to all unknown methods are counted. Callers choose the
// names of unknown methods, and each label value takes memory until the process exits. So all these
// calls share one label value.
var unknown = grpcmetrics.Method{FullName: "/unknown/unknown"}

// NewInterceptor returns a stream interceptor that counts calls and measures their durations. It
// registers the metrics of grpcmetrics.NewServer with r. If r is nil, the interceptor measures
// nothing.
//
// services are the full names of the server's services, as in their .proto files. The generated
// code of each service must be linked into the program: otherwise NewInterceptor panics. go-micro
// finds its handlers by the last part of a service's name: calls to go.micro.srv.basis.Basis and
// to proto.Basis reach the same handler. Both calls are counted under the name in services.
//
// Install the interceptor before any interceptor that serves or rejects calls itself.
func NewInterceptor(r prometheus.Registerer, services ...string) grpc.StreamServerInterceptor {
	if r == nil {
		return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(srv, stream)
		}
	}
	calls := grpcmetrics.NewServer()
	r.MustRegister(calls)
	methods := map[string]grpcmetrics.Method{}
	for _, service := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			panic(fmt.Sprintf("metrics: service %s: %v", service, err))
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			m := all.Get(i)
			known := grpcmetrics.Method{
				FullName:      "/" + service + "/" + string(m.Name()),
				ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer(),
			}
			methods[known.FullName] = known
			methods[short(known.FullName)] = known
		}
	}
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		known, ok := methods[info.FullMethod]
		if !ok {
			known, ok = methods[short(info.FullMethod)]
		}
		if !ok {
			known = unknown
		}
		return calls.Serve(known, stream, func(counted grpc.ServerStream) error { return handler(srv, counted) })
	}
}

// short returns Service/Method for /any.prefix.Service/Method.
func short(fullMethod string) string {
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return service[strings.LastIndexByte(service, '.')+1:] + "/" + method
}
