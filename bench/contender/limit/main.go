// Command limit is the bare grpc-go that all else is built on: one connection,
// nothing discovered and nothing traced.
package main

import (
	"context"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gomicroexample/basis/bench/contender"
	"github.com/gomicroexample/basis/proto"
)

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

const (
	service = "proto.Basis"
	method  = "Hello"
)

// desc is what protoc-gen-go-grpc would make of proto/basis.proto.
var desc = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: method, Handler: handle}},
}

func handle(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var req proto.Request
	if err := decode(&req); err != nil {
		return nil, err
	}
	return &proto.Response{Msg: "Hello " + req.GetName()}, nil
}

func serve(ctx context.Context, _ contender.Env, ready func(string)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	s.RegisterService(&desc, struct{}{})
	context.AfterFunc(ctx, s.Stop)
	ready(l.Addr().String())
	return s.Serve(l)
}

func dial(_ context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	conn, err := grpc.NewClient(env.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, name string) (string, error) {
		var rsp proto.Response
		err := conn.Invoke(ctx, "/"+service+"/"+method, &proto.Request{Name: name}, &rsp)
		return rsp.GetMsg(), err
	}, conn, nil
}
