// Package consul is go-micro's Consul registry with what it needs to be
// started anywhere: a bound on connecting, Consul's own variables, and an
// address that errors can name.
package consul

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
)

// DefaultAddress is that of an agent on this machine.
const DefaultAddress = "127.0.0.1:8500"

// An agent is on this machine or next to it, and a client that finds none, or
// one that hangs, should say so within a second.
const (
	// dialTimeout bounds each attempt to connect.
	dialTimeout = 400 * time.Millisecond
	// probeTimeout bounds the request with which go-micro tries out an address
	// before it makes the one that it was asked for.
	probeTimeout = 400 * time.Millisecond
	probePath    = "/v1/agent/host"
	// answerTimeout bounds all other requests but blocking queries, which
	// wait for minutes by design.
	answerTimeout = 5 * time.Second
)

// NewRegistry returns go-micro's Consul registry for the agent that
// CONSUL_HTTP_ADDR or, later, --registry_address names, with the settings of
// Consul's other CONSUL_HTTP_ variables. Files that those name and that cannot
// be read are errors. Nothing is sent before the registry is used.
func NewRegistry() (registry.Registry, error) {
	cfg := api.DefaultConfig()
	cfg.Transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	// Given a config without an HTTP client, go-micro makes one that ignores
	// all of the above.
	client, err := api.NewHttpClient(cfg.Transport, cfg.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("Consul settings from CONSUL_ variables: %w", err)
	}
	client.Transport = bounded{client.Transport}
	cfg.HttpClient = client
	return consul.NewRegistry(consul.Config(cfg)), nil
}

// Connect tells r, a Consul registry, the address that it has by default. Told
// one, go-micro makes its API client now and keeps it; otherwise it makes a new
// one for every use, which concurrent uses race for. It does nothing to a
// registry that has an address already, or that is not Consul.
func Connect(r registry.Registry) error {
	if r.String() != "consul" || len(r.Options().Addrs) > 0 {
		return nil
	}
	return r.Init(registry.Addrs(Address(r)))
}

// Address returns the host:port at which r is asked, or "" for a registry that
// has none, as mdns.
func Address(r registry.Registry) string {
	if addrs := r.Options().Addrs; len(addrs) > 0 {
		return hostPort(addrs[0])
	}
	if r.String() != "consul" {
		return ""
	}
	if addr := api.DefaultConfig().Address; addr != "localhost:8500" {
		return hostPort(addr)
	}
	return DefaultAddress
}

// hostPort strips the scheme that Consul's addresses may have, and adds the
// port that they may lack.
func hostPort(addr string) string {
	if _, after, ok := strings.Cut(addr, "://"); ok {
		addr = after
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return net.JoinHostPort(strings.Trim(addr, "[]"), "8500")
	}
	return addr
}

// bounded is a transport on which an agent that hangs cannot hold up requests
// for longer than their timeouts.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	timeout := answerTimeout
	switch {
	case req.URL.Query().Has("index"): // a blocking query
		return b.next.RoundTrip(req)
	case strings.HasSuffix(req.URL.Path, probePath):
		timeout = probeTimeout
	}
	ctx, cancel := context.WithTimeoutCause(req.Context(), timeout, fmt.Errorf("no answer within %v", timeout))
	rsp, err := b.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		defer cancel()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	rsp.Body = &cancelOnClose{rsp.Body, cancel}
	return rsp, nil
}

// cancelOnClose frees a request's timer when its answer has been read.
type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelOnClose) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
