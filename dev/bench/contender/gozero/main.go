// Command gozero implements the service and the client with go-zero's zrpc, configured as in
// go-zero's documentation. The client and the server use go-zero's breaker, timeouts, and tracing
// with OpenTelemetry over OTLP/gRPC. The client also uses go-zero's balancer (p2c_ewma), and the
// server also uses go-zero's load shedder. go-zero has no limiter for clients. The client finds
// nodes in Consul with the resolver of dev/modern.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	zerotrace "github.com/zeromicro/go-zero/core/trace"
	"github.com/zeromicro/go-zero/zrpc"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/bench/contender/otelspans"
	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/dev/modern"
)

// serverConfig has the addresses for the bench, and go-zero's defaults with two exceptions. The
// timeout is 5 s, which is also go-micro's default. DevServer, which would open a port, is off.
const serverConfig = `
Name: %s
ListenOn: %s
Timeout: 5000
DevServer:
  Enabled: false
Telemetry:
  Endpoint: %s
  Batcher: otlpgrpc
`

const clientConfig = `
Target: consul:///%s
Timeout: 5000
`

func main() {
	contender.Main(contender.Contender{Serve: serve, Dial: dial})
}

func serve(ctx context.Context, env contender.Env, ready func(string)) error {
	free, address, err := env.Listen()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	free.Close() // zrpc creates its own listener on this port
	var c zrpc.RpcServerConf
	text := fmt.Sprintf(serverConfig, env.Service, net.JoinHostPort(env.Host, port), env.Spans)
	if err := conf.LoadFromYamlBytes([]byte(text), &c); err != nil {
		return err
	}
	// By default, the shedder may reject calls while the CPU load is over 90%. During the bench,
	// the CPU load is over 90%. So the threshold here is 100.1%; the unit is 0.1%. The text of the
	// configuration cannot set a threshold over 99.9%, so this line sets it.
	c.CpuThreshold = 1001
	if !env.Shipped { // by default, go-zero logs each call; Hello logs each call too
		c.Middlewares.StatConf.IgnoreContentMethods = []string{"/" + basisgrpc.Service + "/" + basisgrpc.Method}
	}
	s, err := zrpc.NewServer(c, func(s *grpc.Server) { basisgrpc.Register(s, otelspans.Hello(otel.Tracer("basis"))) })
	if err != nil {
		return err
	}
	logx.SetWriter(logx.NewWriter(os.Stderr))
	defer zerotrace.StopAgent()
	s.AddOptions(env.ServerOptions()...)
	served := make(chan struct{})
	go func() { s.Start(); close(served) }()
	if err := accepts(ctx, address); err != nil {
		return err
	}
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return err
	}
	deregister, err := modern.Register(consul, env.Service, address)
	if err != nil {
		return err
	}
	ready(address)
	<-ctx.Done()
	err = deregister()
	proc.Shutdown() // drains the server at once; go-zero's own signal handler first waits a second
	<-served
	return err
}

// accepts waits until a server accepts a connection at address. It returns an error if ctx is done
// first.
func accepts(ctx context.Context, address string) error {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w", err)
		}
	}
}

func dial(_ context.Context, env contender.Env) (contender.Call, io.Closer, error) {
	var c zrpc.RpcClientConf
	if err := conf.LoadFromYamlBytes([]byte(fmt.Sprintf(clientConfig, env.Service)), &c); err != nil {
		return nil, nil, err
	}
	logx.SetWriter(logx.NewWriter(os.Stderr)) // stdout is for the results
	zerotrace.StartAgent(zerotrace.Config{Name: env.Service + ".client", Endpoint: env.Spans, Sampler: 1, Batcher: "otlpgrpc"})
	consul, err := api.NewClient(&api.Config{Address: env.Registry})
	if err != nil {
		return nil, nil, err
	}
	options := []zrpc.ClientOption{zrpc.WithDialOption(grpc.WithResolvers(modern.Discovery{Consul: consul}))}
	for _, o := range env.DialOptions() {
		options = append(options, zrpc.WithDialOption(o))
	}
	client, err := zrpc.NewClient(c, options...)
	if err != nil {
		return nil, nil, err
	}
	return otelspans.Call(otel.Tracer("basis"), client.Conn()), contender.Closer(func() error {
		zerotrace.StopAgent()
		return nil
	}), nil
}
