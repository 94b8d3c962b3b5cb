package balancer_test

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/internal/mtls"
	"github.com/gomicroexample/basis/internal/mtls/mtlstest"
	"github.com/gomicroexample/basis/proto"
)

// files creates a CA, and returns the files of srv and client.
func files(t *testing.T) (srv, client mtls.Files) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, mtlstest.WriteFiles(dir, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	of := func(name string) mtls.Files {
		return mtls.Files{
			Cert: filepath.Join(dir, name+".pem"),
			Key:  filepath.Join(dir, name+"-key.pem"),
			CA:   filepath.Join(dir, "ca.pem"),
		}
	}
	return of("srv"), of("client")
}

// callTLS makes one call with a client that uses the files in f. On a busy machine, a handshake may
// take longer than a call waits for its connection. In this case, callTLS repeats the call.
func callTLS(t *testing.T, r registry.Registry, f mtls.Files, contentType string) error {
	t.Helper()
	config, err := f.Config(service)
	require.NoError(t, err)
	// The client has no pool: go-micro's client does not close pooled connections at the end.
	opts := []client.Option{client.Retries(0), client.PoolSize(0)}
	if config != nil {
		opts = append(opts, grpc.AuthTLS(config))
	}
	c := newBalanced(t, balancer.New(config), r, opts...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req := c.NewRequest(service, "Basis.Hello", &proto.Request{Name: "John"}, client.WithContentType(contentType))
	for {
		err := c.Call(ctx, req, &proto.Response{})
		if err == nil || !strings.Contains(err.Error(), "no answer within") {
			return err
		}
	}
}

func TestTLS(t *testing.T) {
	// With the content type viaBalancer, a call uses the balancer's connection. With viaMicro, a
	// call uses a connection of go-micro's client.
	const viaBalancer, viaMicro = "application/grpc+proto", "application/grpc+json"
	srv, ours := files(t)
	_, theirs := files(t)
	mixed := theirs
	mixed.CA = ours.CA
	config, err := srv.Config(service)
	require.NoError(t, err)
	secure, plain := memory.NewRegistry(), memory.NewRegistry()
	n := start(t, secure, "a", grpcserver.AuthTLS(config))
	start(t, plain, "a")

	for _, contentType := range []string{viaBalancer, viaMicro} {
		require.NoError(t, callTLS(t, secure, ours, contentType))
		require.ErrorContains(t, callTLS(t, secure, theirs, contentType), "certificate signed by unknown authority")
		require.ErrorContains(t, callTLS(t, plain, ours, contentType), "does not look like a TLS handshake")
		require.ErrorContains(t, callTLS(t, secure, mtls.Files{}, contentType), "server preface")
		require.Error(t, callTLS(t, secure, mixed, contentType))
	}
	_, err = tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	require.ErrorContains(t, err, "protocol version not supported")
	require.ErrorContains(t, callTLS(t, plain, ours, viaBalancer), "the server has to be started with --tls_cert")
	require.ErrorContains(t, callTLS(t, secure, mtls.Files{}, viaBalancer), "if the server has TLS on, use --tls_cert")
	// The server may close the connection before or after the client has written its first frames.
	// The error must be the same in both cases.
	for range 20 {
		require.ErrorContains(t, callTLS(t, secure, mixed, viaBalancer), "the server refuses: remote error: tls: unknown certificate authority")
	}
}

func TestTheServersCertificateHasToBeTheServices(t *testing.T) {
	_, ours := files(t)
	config, err := ours.Config(service)
	require.NoError(t, err)
	r := memory.NewRegistry()
	start(t, r, "a", grpcserver.AuthTLS(config)) // a server with a client's certificate
	require.ErrorContains(t, callTLS(t, r, ours, "application/grpc+proto"), "not "+service)
}
