// Package admin serves a running program's metrics, health and Go profiles over HTTP.
//
// The metrics are for Prometheus. Without an address, package admin serves nothing. Then
// Server.Registerer returns nil, and the program measures nothing.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/micro/cli"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthPath is the URL path of a program's health.
const healthPath = "/healthz"

// healthTimeout is how long AskHealth waits for a response. A response usually takes a millisecond.
const healthTimeout = 2 * time.Second

// closeTimeout is how long Close waits for requests in flight.
const closeTimeout = time.Second

// maxScrapes limits the number of concurrent scrapes. The Prometheus of dev/prometheus makes one
// scrape every 5 s.
const maxScrapes = 8

// Settings are the values of the flags that Flags returns.
type Settings struct {
	// Address is the host:port to listen on. The default host is 127.0.0.1. If Address is empty,
	// the server is off.
	Address string
	// If HealthCheck is set, this process only queries the health of another process, which listens
	// on Address. Then this process exits.
	HealthCheck bool
}

// Flags returns the flags --metrics_address and --health_check, which set s. The variable
// BASIS_METRICS_ADDRESS also sets --metrics_address.
func (s *Settings) Flags() []cli.Flag {
	return []cli.Flag{
		cli.StringFlag{
			Name: "metrics_address", EnvVar: "BASIS_METRICS_ADDRESS", Destination: &s.Address,
			Usage: "host:port that serves /metrics, /healthz and /debug/pprof, for example :9464. Without a host, only this machine can connect. The default is none",
		},
		cli.BoolFlag{
			Name: "health_check", Destination: &s.HealthCheck,
			Usage: "Query the health of the program that serves --metrics_address on this host, and exit with status 0 if the program is healthy",
		},
	}
}

// Check returns an error if Address is not host:port, or if HealthCheck is set and Address is
// empty.
func (s *Settings) Check() error {
	if s.Address == "" {
		if s.HealthCheck {
			return errors.New("--health_check has nobody to ask; name the program's --metrics_address, or set BASIS_METRICS_ADDRESS")
		}
		return nil
	}
	if _, err := net.ResolveTCPAddr("tcp", s.local()); err != nil {
		return fmt.Errorf("--metrics_address is %q: %w; want host:port, as in 127.0.0.1:9464", s.Address, err)
	}
	return nil
}

// local returns Address. If Address has no host, local adds the host 127.0.0.1.
func (s *Settings) local() string {
	if host, port, err := net.SplitHostPort(s.Address); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return s.Address
}

// AskHealth queries the health of the program that listens on Address, and returns the response.
// AskHealth returns an error if the program is not healthy, or does not respond within 2 s.
func (s *Settings) AskHealth() (string, error) {
	host, port, _ := net.SplitHostPort(s.local())
	if ip := net.ParseIP(host); ip.IsUnspecified() { // the program listens on all addresses
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	url := "http://" + net.JoinHostPort(host, port) + healthPath
	// This transport uses no proxy, because the program runs on this host.
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: healthTimeout}
	rsp, err := c.Get(url)
	if err != nil {
		return "", fmt.Errorf("asking for health: %w", err)
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(rsp.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("asking %s for health: %w", url, err)
	}
	if rsp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("not healthy: %s", strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// Server serves metrics, health and profiles. Its methods are safe for concurrent use.
type Server struct {
	http     *http.Server // nil if the server is off
	address  string
	mux      *http.ServeMux
	registry *prometheus.Registry

	mu        sync.Mutex
	unhealthy error // nil while the program is healthy
}

// Listen starts a server on s.Address. Call s.Check before Listen. Until the program calls
// SetHealth, its health is "starting", which is not healthy. If s.Address is empty, the server is
// off: its methods do nothing. Listen returns an error if it cannot listen on the address.
func Listen(s Settings) (*Server, error) {
	if s.Address == "" {
		return &Server{}, nil
	}
	l, err := net.Listen("tcp", s.local())
	if err != nil {
		return nil, fmt.Errorf("--metrics_address: %w", err)
	}
	a := &Server{address: l.Addr().String(), registry: prometheus.NewRegistry(), mux: http.NewServeMux(), unhealthy: errors.New("starting")}
	a.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	a.mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{
		ErrorLog: log.Default(), ErrorHandling: promhttp.ContinueOnError,
		Registry: a.registry, MaxRequestsInFlight: maxScrapes,
	}))
	a.mux.HandleFunc("GET "+healthPath, a.serveHealth)
	a.mux.HandleFunc("/debug/pprof/", pprof.Index)
	a.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	a.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	a.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	a.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a.http = &http.Server{
		Handler: a.mux,
		// There is no WriteTimeout, because a profile or a stream may take as long as its reader
		// wants.
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: log.Default(),
	}
	log.Printf("Metrics on http://%s/metrics", a.address)
	go func() { _ = a.http.Serve(l) }() // until Close
	return a, nil
}

// Address returns the host:port that the server listens on, or "" if the server is off.
func (a *Server) Address() string { return a.address }

// Registerer returns the Prometheus registerer of the served metrics, or nil if the server is off.
func (a *Server) Registerer() prometheus.Registerer {
	if a.http == nil {
		return nil
	}
	return a.registry
}

// Handle makes the handler h serve the requests that match pattern. The pattern has the syntax of
// http.ServeMux.
func (a *Server) Handle(pattern string, h http.Handler) {
	if a.http != nil {
		a.mux.Handle(pattern, h)
	}
}

// SetHealth sets the program's health. nil means healthy; an error is the reason why the program is
// not healthy.
func (a *Server) SetHealth(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unhealthy = err
}

func (a *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	err := a.unhealthy
	a.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// Close stops the server. It waits up to 1 s for requests in flight, and then closes their
// connections.
func (a *Server) Close() error {
	if a.http == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		return a.http.Close() // ends streams
	}
	return nil
}
