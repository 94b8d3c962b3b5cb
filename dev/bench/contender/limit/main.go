// Command limit is the bare grpc-go that all else is built on: one connection to
// each instance, nothing discovered and nothing traced.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/bench/contender/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

var (
	instances = flag.Int("instances", 1, "server: how many, each on a port of its own")
	quiet     = flag.Bool("quiet", false, "server: without the line that Hello logs")
)

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func hello(_ context.Context, req *proto.Request) (*proto.Response, error) {
	if *quiet {
		return &proto.Response{Msg: "Hello " + req.GetName()}, nil
	}
	return &proto.Response{Msg: contender.Hello(req.GetName())}, nil
}

func serve(ctx context.Context, _ contender.Env, ready func(string)) error {
	servers, ctx := errgroup.WithContext(ctx)
	var addresses []string
	for range *instances {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := grpc.NewServer()
		basisgrpc.Register(s, hello)
		context.AfterFunc(ctx, s.Stop)
		servers.Go(func() error { return s.Serve(l) })
		addresses = append(addresses, l.Addr().String())
	}
	ready(strings.Join(addresses, ","))
	return servers.Wait()
}

func dial(_ context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	var all conns
	for _, address := range strings.Split(env.Address, ",") {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
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
