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
		micro.RegisterInterval(time.Second*10), // how often the server renews it
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
		micro.WrapHandler(ocplugin.NewHandlerWrapper(t)), // continues the caller's trace, or starts a trace
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
				healthServer.Shutdown() // SIGQUIT does not cancel ctx: only go-micro handles it
				services.Drain()
			},
		})),
	)
	counter := metrics.NewInterceptor(operators.Registerer(), slices.Collect(maps.Keys(services.GetServiceInfo()))...)
	opts := limits(counter, services.Interceptor)
	if tlsConfig != nil {
		opts = append(opts, grpcserver.AuthTLS(tlsConfig))
	}
	// Set these options in the last Init. At each Init, go-micro creates a new gRPC server, and
	// does not stop the old gRPC server. If an earlier Init had these options, the old server's
	// workers would run until the process exits.
	_ = service.Server().Init(opts...) // never fails

	if err := proto.RegisterBasisHandler(service.Server(), &handler.Basis{ID: name, Delay: delay}); err != nil {
		return err
	}
	// Run returns after a signal, when the node is deregistered and the in-flight calls have ended.
	// The wait for the calls has no timeout, but a second signal ends the process.
	return explainListen(service.Run())
}

// grpcServices returns gRPC's own services. The health service reports on name, on proto.Basis and
// on the server as a whole. If reflected is true, the reflection service is included.
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

// explainListen returns err. If err says that the server could not listen, explainListen adds the
// name of the flag --server_address.
func explainListen(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "listen" {
		return fmt.Errorf("--server_address: %w", err)
	}
	return err
}

// limits returns options that bound the memory and the time that one caller can use. gRPC's default
// limits are higher, or there is no limit by default. The interceptors run before
// malformed.Interceptor.
func limits(interceptors ...grpc.StreamServerInterceptor) []server.Option {
	return []server.Option{
		// A message with the longest valid name has 259 bytes. If a name is longer, but its message
		// is within this limit, Hello returns its own error. The limit also applies to a compressed
		// message, before and after decompression. gRPC's default is 4 MB.
		grpcserver.MaxMsgSize(64 << 10),
		grpcserver.Options(append(grpcLimits(), grpc.ChainStreamInterceptor(append(interceptors, malformed.Interceptor)...))...),
	}
}

// grpcLimits returns the limits for which go-micro has no option.
func grpcLimits() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Maximum size of a call's metadata, in bytes. A normal call has a few short values. gRPC's
		// default is 16 MB.
		grpc.MaxHeaderListSize(8 << 10),
		// Maximum number of in-flight calls on one connection. Calls over this limit wait in the
		// client.
		grpc.MaxConcurrentStreams(500),
		// Maximum number of unread bytes of one call. By default, gRPC increases the window up to
		// 16 MB.
		grpc.StaticStreamWindowSize(64 << 10),
		// Timeout of a new connection, including its HTTP/2 handshake. gRPC's default is
		// 2 minutes.
		grpc.ConnectionTimeout(5 * time.Second),
		// If a caller sends nothing for the duration Time, the server pings the caller. gRPC's
		// default is 2 hours. If a caller does not respond, or does not read, for the duration
		// Timeout, the server closes the connection.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		// Callers often ping every 10 s, with or without in-flight calls. The network can shorten
		// the time between two pings, so MinTime is 5 s. If a caller pings more often, the server
		// closes the connection. By default, gRPC allows one ping in 5 minutes, or one in 2 hours
		// if there are no in-flight calls. With this default, a caller that pings every 10 s loses
		// its connection and its in-flight calls.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// A worker is a goroutine that serves one call after another. So a worker's stack grows
		// once, and not for each call. When all workers are busy, gRPC starts a new goroutine for a
		// call.
		grpc.NumStreamWorkers(64),
	}
}
