// Package basisgrpc has the gRPC service and client of proto/basis.proto, for programs that use
// gRPC without go-micro. It replaces code that protoc-gen-go-grpc would generate.
package basisgrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/proto"
)

// The names of the service and its method in gRPC.
const (
	Service = "proto.Basis"
	Method  = "Hello"
)

// Server handles calls of Hello.
type Server func(ctx context.Context, req *proto.Request) (*proto.Response, error)

// Register registers hello as the method Hello of Service.
func Register(s grpc.ServiceRegistrar, hello Server) { RegisterAs(s, Service, hello) }

// RegisterAs registers hello as the method Hello of the gRPC service with the name service.
// go-micro's clients do not use the name in the constant Service. They use the server's name in the
// registry, followed by ".Basis".
func RegisterAs(s grpc.ServiceRegistrar, service string, hello Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: Method, Handler: handle}},
	}, hello)
}

func handle(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	hello := server.(Server)
	req := new(proto.Request)
	if err := decode(req); err != nil {
		return nil, err
	}
	if intercept == nil {
		return hello(ctx, req)
	}
	info := &grpc.UnaryServerInfo{Server: server, FullMethod: "/" + Service + "/" + Method}
	return intercept(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return hello(ctx, req.(*proto.Request))
	})
}

// Hello calls the method Hello over conn.
func Hello(ctx context.Context, conn grpc.ClientConnInterface, req *proto.Request, opts ...grpc.CallOption) (*proto.Response, error) {
	rsp := new(proto.Response)
	if err := conn.Invoke(ctx, "/"+Service+"/"+Method, req, rsp, opts...); err != nil {
		return nil, err
	}
	return rsp, nil
}
