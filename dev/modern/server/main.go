// Command server is the Basis service on grpc-go and OpenTelemetry. It registers in Consul under
// the name of srv, and serves Hello until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/consul/api"

	"github.com/gomicroexample/basis/dev/modern"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "server: %v\n", err)
		os.Exit(1)
	}
}

func run() (err error) {
	registry := flag.String("registry_address", "", "`host:port` of Consul; without it, the one in CONSUL_HTTP_ADDR, or 127.0.0.1:8500")
	address := flag.String("server_address", "127.0.0.1:0", "`host:port` to listen on and to register; port 0 is a free one")
	otlp := flag.String("otlp_address", "127.0.0.1:4317", "`host:port` of Jaeger's OTLP receiver (gRPC)")
	delay := flag.Duration("delay", 0, "how long each call takes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	provider, flush, err := modern.NewTracing("modern.srv.basis", *otlp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flush()) }()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	s := modern.NewServer(provider, *delay)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	defer s.GracefulStop()

	consul, err := api.NewClient(&api.Config{Address: *registry})
	if err != nil {
		return err
	}
	deregister, err := modern.Register(consul, modern.ServiceName, listener.Addr().String())
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return deregister()
	case err := <-served:
		return errors.Join(err, deregister())
	}
}
