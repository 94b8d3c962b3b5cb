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
	"github.com/gomicroexample/basis/bench/contender/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func hello(_ context.Context, req *proto.Request) (*proto.Response, error) {
	return &proto.Response{Msg: "Hello " + req.GetName()}, nil
}

func serve(ctx context.Context, _ contender.Env, ready func(string)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	basisgrpc.Register(s, hello)
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
		rsp, err := basisgrpc.Hello(ctx, conn, &proto.Request{Name: name})
		return rsp.GetMsg(), err
	}, conn, nil
}
