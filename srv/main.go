// Command srv is the Basis service: it registers itself in Consul and answers
// Hello over gRPC.
package main

import (
	"cmp"
	"context"
	"fmt"
	stdlog "log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/micro/cli"
	micro "github.com/micro/go-micro"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/config/cmd"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-micro/util/log"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/mtls"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/advertise"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/srv/refuse"
	"github.com/gomicroexample/basis/srv/registration"
	"github.com/gomicroexample/basis/tracer"
)

// ballast counts when the garbage collector asks whether the few MB that are live have
// doubled, so that it runs about a seventh as often. Never touched, it takes no memory;
// the garbage does, up to 20 MB more.
const ballast = 16 << 20

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "srv: %s\n", oneline.Escape(err.Error()))
		os.Exit(1)
	}
}

func run() error {
	var (
		delay         time.Duration
		jaegerAddress string
		tlsFiles      mtls.Files
	)
	defer runtime.KeepAlive(make([]byte, ballast))
	stdlog.SetOutput(oneline.Writer{Writer: os.Stderr}) // for go-micro and the tracer
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		signal.Reset(syscall.SIGINT, syscall.SIGTERM) // go-micro's Run has them too
		log.Info("Stopping; a second signal ends it at once")
	})

	service := micro.NewService(
		// First: the options below act on the server and client set here.
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient()),
		micro.Context(ctx),
		micro.Registry(consul.NewRegistry()),   // at 127.0.0.1:8500
		micro.Broker(cmdline.NewBroker()),      // one that opens no port
		micro.Name("go.micro.srv.basis"),       // service name
		micro.RegisterTTL(time.Second*30),      // how long a registration lasts
		micro.RegisterInterval(time.Second*10), // how often it is renewed
		micro.Cmd(cmd.NewCmd(
			cmd.Name("srv"),
			cmd.Description("registers the Basis service and answers its calls, until interrupted"),
		)),
		micro.Flags(
			cli.DurationFlag{
				Name: "delay", EnvVar: "BASIS_DELAY", Destination: &delay,
				Usage: "How long each call takes, as in 1s or 200ms",
			},
			cmdline.JaegerAddress(&jaegerAddress),
		),
		micro.Flags(tlsFiles.Flags()...),
	)
	cmdline.Parse(service, func() error {
		if delay < 0 {
			return fmt.Errorf("--delay is %v; want 0 or more", delay)
		}
		return cmp.Or(tlsFiles.Check(service.Server().String()), tracer.CheckAddress(jaegerAddress))
	})
	name, registry := service.Server().Options().Name, service.Options().Registry
	if err := consul.Err(registry); err != nil {
		return err
	}
	tlsConfig, err := tlsFiles.Config(name)
	if err != nil {
		return err
	}

	t, closer, err := tracer.NewTracer(name, jaegerAddress)
	if err != nil {
		return err
	}
	defer closer.Close() // sends the last spans
	service.Init(
		micro.WrapHandler(ocplugin.NewHandlerWrapper(t)),
		micro.Registry(registration.Keep(
			advertise.Registry(registry, consul.Address(registry), service.Server().Options()),
			func(err error) error { return consul.Explain(registry, err) },
		)),
	)
	opts := limits()
	if tlsConfig != nil {
		opts = append(opts, grpcserver.AuthTLS(tlsConfig))
	}
	// Last: go-micro makes a new gRPC server for each option that it is given, and
	// does not stop the old one, nor its workers.
	_ = service.Server().Init(opts...) // never fails

	if err := proto.RegisterBasisHandler(service.Server(), &handler.Basis{ID: name, Delay: delay}); err != nil {
		return err
	}
	// Run returns after a signal, when the node has left the registry and the calls
	// in flight are answered.
	return service.Run()
}

// limits are what one caller can make the server hold, and wait for. gRPC's own
// are wider, where there are any.
func limits() []server.Option {
	return []server.Option{
		// The longest name takes 259 bytes. Longer ones, up to here, get Hello's own
		// error. gRPC's limit is 4 MB.
		grpcserver.MaxMsgSize(64 << 10),
		grpcserver.Options(
			// Of a call's metadata, a few short values. gRPC's limit is 16 MB.
			grpc.MaxHeaderListSize(8<<10),
			// Calls under way on one connection; others wait at the caller.
			grpc.MaxConcurrentStreams(500),
			// Bytes of one call that are not read yet. gRPC goes from this up to 16 MB.
			grpc.StaticStreamWindowSize(64<<10),
			// A new connection has to speak HTTP/2 by then. gRPC waits for 2 minutes.
			grpc.ConnectionTimeout(5*time.Second),
			// A silent caller is asked after Time, not 2 hours, whether it is there. It
			// is cut off when it does not answer, or takes no data, for Timeout.
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
			grpc.StreamInterceptor(refuse.Malformed),
			// Workers: goroutines kept for the next call, since their stacks have
			// grown. When all are busy, a call gets a new one.
			grpc.NumStreamWorkers(64),
		),
	}
}
