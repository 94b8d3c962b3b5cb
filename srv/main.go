// Command srv is the Basis service: it registers itself in Consul and answers
// Hello over gRPC.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/micro/cli"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/memory"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/config/cmd"
	grpcserver "github.com/micro/go-micro/server/grpc"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/advertise"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/tracer"
)

func main() {
	os.Exit(run())
}

func run() int {
	var (
		delay         time.Duration
		jaegerAddress string
	)
	registry, err := consul.NewRegistry() // at 127.0.0.1:8500
	if err != nil {
		return fail(err)
	}
	service := micro.NewService(
		// First: the options below act on the server and client set here.
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient()),
		micro.Registry(registry),
		micro.Broker(memory.NewBroker(withContext)), // the default one opens a port that nobody uses
		micro.Name("go.micro.srv.basis"),            // service name
		micro.RegisterTTL(time.Second*30),           // how long a registration lasts
		micro.RegisterInterval(time.Second*10),      // how often it is renewed
		micro.Cmd(cmd.NewCmd(
			cmd.Name("srv"),
			cmd.Description("registers the Basis service and answers its calls, until interrupted"),
		)),
		micro.Flags(
			cli.DurationFlag{
				Name: "delay", EnvVar: "BASIS_DELAY", Destination: &delay,
				Usage: "How long each call takes, as in 1s or 200ms",
			},
			cli.StringFlag{
				Name: "jaeger_address", EnvVar: "JAEGER_ADDRESS", Destination: &jaegerAddress,
				Value: tracer.DefaultAddress,
				Usage: "host:port of the Jaeger that spans are sent to, over UDP",
			},
		),
	)
	cmdline.Parse(service, func() error {
		if delay < 0 {
			return fmt.Errorf("--delay is %v; want 0 or more", delay)
		}
		return tracer.CheckAddress(jaegerAddress)
	})
	name := service.Server().Options().Name

	t, closer, err := tracer.NewTracer(name, jaegerAddress)
	if err != nil {
		return fail(err)
	}
	defer closer.Close() // sends the last spans
	service.Init(micro.WrapHandler(ocplugin.NewHandlerWrapper(t)))

	if opts := service.Options(); !advertise.Chosen(service.Server().Options()) {
		service.Init(micro.Registry(advertise.Registry(opts.Registry, consul.Address(opts.Registry))))
	}

	basis := &handler.Basis{ID: name, Delay: delay}
	if err := proto.RegisterBasisHandler(service.Server(), basis); err != nil {
		return fail(err)
	}
	// Run returns after SIGINT or SIGTERM, when the node has left the registry
	// and the calls in flight are answered.
	if err := service.Run(); err != nil {
		return fail(err)
	}
	return 0
}

// withContext gives the memory broker the context without which it panics as
// soon as it is told of the registry.
func withContext(o *broker.Options) {
	o.Context = context.Background()
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "srv: %v\n", err)
	return 1
}
