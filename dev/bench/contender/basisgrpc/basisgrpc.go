// Package basisgrpc is what protoc-gen-go-grpc would make of proto/basis.proto,
// for the contenders that speak gRPC without go-micro.
package basisgrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/proto"
)

// The service and its method, by their names in gRPC.
const (
	Service = "proto.Basis"
	Method  = "Hello"
)

// Server answers calls of Hello.
type Server func(ctx context.Context, req *proto.Request) (*proto.Response, error)

// Register has s answer calls of Hello.
func Register(s grpc.ServiceRegistrar, hello Server) {
	s.RegisterService(&desc, hello)
}

var desc = grpc.ServiceDesc{
	ServiceName: Service,
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: Method, Handler: handle}},
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

// Hello calls Hello on a connection.
func Hello(ctx context.Context, conn grpc.ClientConnInterface, req *proto.Request) (*proto.Response, error) {
	rsp := new(proto.Response)
	if err := conn.Invoke(ctx, "/"+Service+"/"+Method, req, rsp); err != nil {
		return nil, err
	}
	return rsp, nil
}
