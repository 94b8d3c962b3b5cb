// Command limit implements the service and the client with grpc-go alone: one connection per
// address, no discovery and no tracing. All other contenders except article are built on grpc-go
// too. So the calls/s of limit are an upper limit for these contenders.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

var quiet = flag.Bool("quiet", false, "server: without the line that Hello logs")

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func hello(_ context.Context, req *proto.Request) (*proto.Response, error) {
	if *quiet {
		return &proto.Response{Msg: "Hello " + req.GetName()}, nil
	}
	return &proto.Response{Msg: contender.Hello(req.GetName())}, nil
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	l, address, err := env.Listen()
	if err != nil {
		return err
	}
	s := grpc.NewServer(env.ServerOptions()...)
	basisgrpc.Register(s, hello)
	context.AfterFunc(ctx, s.Stop)
	ready(address)
	return s.Serve(l)
}

func dial(_ context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	var all conns
	for _, address := range strings.Split(env.Address, ",") {
		conn, err := grpc.NewClient(address, append(env.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, conn)
	}
	var calls atomic.Uint64
	return func(ctx context.Context, name string) (string, error) {
		conn := all[calls.Add(1)%uint64(len(all))]
		rsp, err := basisgrpc.Hello(ctx, conn, &proto.Request{Name: name})
		return rsp.GetMsg(), err
	}, all, nil
}

type conns []*grpc.ClientConn

func (all conns) Close() error {
	var err error
	for _, conn := range all {
		err = errors.Join(err, conn.Close())
	}
	return err
}
