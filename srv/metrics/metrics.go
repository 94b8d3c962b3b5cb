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

// unknown is the method of all calls that name no method of the server. Callers make up
// names, and each label value takes memory for as long as the process runs.
var unknown = grpcmetrics.Method{FullName: "/unknown/unknown"}

// NewInterceptor returns a stream interceptor that counts and times calls. It registers the metrics
// of grpcmetrics.NewServer with r. If r is nil, the interceptor measures nothing.
//
// services are the full names of the server's services, as their .proto files have them. The
// generated code of each has to be linked. go-micro finds its handlers by the last part of a
// service's name: a call to go.micro.srv.basis.Basis and one to proto.Basis arrive at the same
// handler. Both are counted under the name in services.
//
// The interceptor has to come before those that answer calls themselves.
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
