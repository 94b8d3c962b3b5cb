// Command srv runs the Basis service: it registers in Consul and serves Hello over gRPC.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
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
	_ "google.golang.org/grpc/encoding/gzip" // decompresses requests
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/gomicroexample/basis/internal/admin"
	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/gctuning"
	"github.com/gomicroexample/basis/internal/mtls"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/dispatch"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/srv/health"
	"github.com/gomicroexample/basis/srv/malformed"
	"github.com/gomicroexample/basis/srv/metrics"
	"github.com/gomicroexample/basis/srv/registration"
	"github.com/gomicroexample/basis/tracer"
)

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
		reflected     bool
		as            admin.Settings
	)
	gctuning.Apply()
	stdlog.SetOutput(oneline.Writer{Writer: os.Stderr}) // go-micro and the tracer log here

	consulRegistry, consulErr := consul.NewRegistry() // by default at 127.0.0.1:8500
	service := micro.NewService(
		// Server and Client come first: the options below configure this server and client.
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient()),
		micro.Registry(consulRegistry),
		micro.Broker(cmdline.NewBroker()),      // opens no port
		micro.Name("go.micro.srv.basis"),       // service name
		micro.RegisterTTL(time.Second*30),      // how long a registration lasts
		micro.RegisterInterval(time.Second*10), // how often it is renewed
		micro.Cmd(cmd.NewCmd(
			cmd.Name("srv"),
			cmd.Description("registers the Basis service and answers its calls until it is interrupted"),
		)),
		micro.Flags(
			cli.DurationFlag{
				Name: "delay", EnvVar: "BASIS_DELAY", Destination: &delay,
				Usage: "Time that each call takes, for example 1s or 200ms",
			},
			tracer.AddressFlag(&jaegerAddress),
			cli.BoolTFlag{
				Name: "reflection", EnvVar: "BASIS_REFLECTION", Destination: &reflected,
				Usage: "Serve gRPC reflection, which lists the services and their messages; on, unless --reflection=false",
			},
		),
		micro.Flags(as.Flags()...),
		micro.Flags(tlsFiles.Flags()...),
	)
	cmdline.Parse(service, cmdline.Server, func(given func(flag string) bool) error {
		if delay < 0 {
			return fmt.Errorf("--delay is %v; want 0 or more", delay)
		}
		if protocol := service.Server().String(); given("reflection") && protocol != "grpc" {
			return fmt.Errorf("--reflection is for gRPC only, not for %s; leave out --server", protocol)
		}
		return cmp.Or(tlsFiles.Check(service.Server().String()), tracer.CheckAddress(jaegerAddress), as.Check())
	})
	if as.HealthCheck {
		answer, err := as.AskHealth()
		fmt.Print(answer)
		return err
	}
	name, registry := service.Server().Options().Name, service.Options().Registry
	if registry == consulRegistry && consulErr != nil {
		return consulErr
	}
	tlsConfig, err := tlsFiles.Config(name)
	if err != nil {
		return err
	}

	operators, err := admin.Listen(as)
	if err != nil {
		return err
	}
	defer operators.Close()

	t, closer, err := tracer.NewTracer(name, jaegerAddress, tracer.Metrics(operators.Registerer()))
	if err != nil {
		return err
	}
	defer closer.Close() // sends the last spans
	services, healthServer := grpcServices(name, reflected)
	registrations := registration.NewMetrics(func() time.Duration { return service.Server().Options().RegisterTTL })
	if r := operators.Registerer(); r != nil {
		r.MustRegister(registrations)
	}
	// From here on, a signal cancels ctx: go-micro then deregisters the node and drains in-flight
	// calls. A second signal ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		healthServer.Shutdown()
		operators.SetHealth(errors.New("stopping"))
		stop()
		signal.Reset(syscall.SIGINT, syscall.SIGTERM) // also for go-micro's Run, which handles both signals
		log.Info("Stopping; a second signal ends it at once")
	})
	service.Init(
		micro.Context(ctx),
		micro.WrapHandler(ocplugin.NewHandlerWrapper(t)),
		micro.Registry(registration.NewRegistry(registry, registration.Options{
			RegistryAddresses: consul.Addresses(registry),
			Server:            service.Server().Options(),
			Explain:           func(err error) error { return consul.Explain(registry, err) },
			Holder:            func(id string) (string, error) { return consul.Holder(registry, id) },
			Leftover: func(id string) string {
				return consul.Leftover(registry, id, service.Server().Options().RegisterTTL)
			},
			Observe: func(err error) {
				registrations.Observe(err)
				if err == nil && ctx.Err() == nil {
					healthServer.Serving()
					operators.SetHealth(nil)
				}
			},
			Deregistered: func() {
				registrations.Deregistered()
				healthServer.Shutdown() // repeated for SIGQUIT, which only go-micro handles
				services.Drain()
			},
		})),
	)
	counter := metrics.NewInterceptor(operators.Registerer(), slices.Collect(maps.Keys(services.GetServiceInfo()))...)
	opts := limits(counter, services.Interceptor)
	if tlsConfig != nil {
		opts = append(opts, grpcserver.AuthTLS(tlsConfig))
	}
	// These options come last: go-micro creates a new gRPC server at each Init, and stops neither
	// the old server nor its workers.
	_ = service.Server().Init(opts...) // never fails

	if err := proto.RegisterBasisHandler(service.Server(), &handler.Basis{ID: name, Delay: delay}); err != nil {
		return err
	}
	// Run returns after a signal, when the node is deregistered and the in-flight calls have ended.
	// There is no limit to this wait, but a second signal ends the process.
	return listening(service.Run())
}

// grpcServices returns gRPC's own services: health for name, for proto.Basis and for the server as
// a whole, and, if reflected, reflection.
func grpcServices(name string, reflected bool) (*dispatch.Services, *health.Server) {
	basis := string(proto.File_proto_basis_proto.Services().ByName("Basis").FullName())
	services, healthServer := dispatch.NewServices(), health.NewServer(basis, name)
	services.Announce(basis)
	healthpb.RegisterHealthServer(services, healthServer)
	if reflected {
		reflection.Register(services)
	}
	return services, healthServer
}

// listening returns err. If the server could not listen, it adds the flag's name.
func listening(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "listen" {
		return fmt.Errorf("--server_address: %w", err)
	}
	return err
}

// limits bounds the memory and the time that one caller can take from the server. gRPC's default
// limits are higher or missing. The interceptors run before malformed.Interceptor.
func limits(interceptors ...grpc.StreamServerInterceptor) []server.Option {
	return []server.Option{
		// A message with the longest name has 259 bytes. For a longer name within the limit,
		// Hello returns its own error. The limit also applies to a compressed message, before
		// and after decompression. gRPC's default is 4 MB.
		grpcserver.MaxMsgSize(64 << 10),
		grpcserver.Options(append(grpcLimits(), grpc.ChainStreamInterceptor(append(interceptors, malformed.Interceptor)...))...),
	}
}

// grpcLimits returns the limits for which go-micro has no option.
func grpcLimits() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Bytes of a call's metadata, which has a few short values. gRPC's default is 16 MB.
		grpc.MaxHeaderListSize(8 << 10),
		// In-flight calls on one connection; further calls wait at the caller.
		grpc.MaxConcurrentStreams(500),
		// Unread bytes of one call. By default, gRPC increases the window up to 16 MB.
		grpc.StaticStreamWindowSize(64 << 10),
		// Timeout of a new connection, including its HTTP/2 handshake. gRPC's default is
		// 2 minutes.
		grpc.ConnectionTimeout(5 * time.Second),
		// The server pings a silent caller after Time; gRPC's default is 2 hours. The server
		// closes the connection of a caller that does not respond, or does not read, for Timeout.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		// Callers often ping every 10 s, with or without in-flight calls. Pings may arrive
		// closer together than they were sent, so MinTime is 5 s. The server closes the
		// connection of a caller that pings more often. By default, gRPC allows one ping in
		// 5 minutes, or in 2 hours without in-flight calls: a caller that pings every 10 s
		// loses its connection and its in-flight calls.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Workers are goroutines that serve one call after another: their stacks have already
		// grown. When all workers are busy, a call gets a new goroutine.
		grpc.NumStreamWorkers(64),
	}
}
