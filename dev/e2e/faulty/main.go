// Command faulty is a Basis server that returns a server error for every call: 502, 503, 504 and
// 500 in turn. It does not return 501: this code means that the server does not have the method,
// and not that the server has failed. The end-to-end scripts run faulty beside the real servers.
package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	micro "github.com/micro/go-micro"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/errors"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-micro/util/log"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/proto"
)

const name = "go.micro.srv.basis"

var codes = [...]int32{500, 502, 503, 504}

type faulty struct {
	proto.BasisHandler // nil; has the methods that the scripts do not call
	calls              atomic.Int32
}

func (f *faulty) Hello(context.Context, *proto.Request, *proto.Response) error {
	log.Info("Yoooo! I received it")
	return errors.New(name, "as always", codes[f.calls.Add(1)%int32(len(codes))])
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "faulty: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	r, err := consul.NewRegistry()
	if err != nil {
		return err
	}
	service := micro.NewService(
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient()),
		micro.Registry(r),
		micro.Broker(cmdline.NewBroker()),
		micro.Name(name),
		micro.Address("127.0.0.1:0"),
		micro.RegisterTTL(30*time.Second),
		micro.RegisterInterval(10*time.Second),
	)
	if err := proto.RegisterBasisHandler(service.Server(), new(faulty)); err != nil {
		return err
	}
	return service.Run()
}
