package backend

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/jaegerui"
)

//go:embed jaeger.yaml
var jaegerConfig []byte

// Jaeger is a running Jaeger on this machine that keeps traces in memory.
type Jaeger struct {
	*Process
	Addr string // host:port that receives spans over UDP
	OTLP string // host:port that receives spans over gRPC
	URL  string // of its UI and API
}

// JaegerPorts are the ports that a Jaeger listens on. If a port is 0 or not free, a free port
// replaces it.
type JaegerPorts struct {
	UI    int // the UI and the HTTP API
	Spans int // spans over UDP
	GRPC  int // the gRPC API, which nothing here calls
	OTLP  int // spans over gRPC
}

// DefaultJaegerPorts are Jaeger's default ports.
var DefaultJaegerPorts = JaegerPorts{UI: 16686, Spans: 6831, GRPC: 16685, OTLP: 4317}

// StartJaeger runs the Jaeger at path with its log in dir, and waits until its API and its UI
// respond. The UI consists of the pages of binaries.UI, even if the Jaeger has its own pages. If
// the UI would be a blank page in a browser, StartJaeger returns an error.
func StartJaeger(ctx context.Context, path, dir string, ports JaegerPorts) (*Jaeger, error) {
	if err := orFree(&ports.UI, &ports.Spans, &ports.GRPC, &ports.OTLP); err != nil {
		return nil, fmt.Errorf("ports for Jaeger: %w", err)
	}
	ui, err := binaries.UI()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "jaeger.yaml")
	if err := os.WriteFile(config, jaegerConfig, 0o644); err != nil {
		return nil, err
	}
	j := &Jaeger{Addr: local(ports.Spans), OTLP: local(ports.OTLP), URL: "http://" + local(ports.UI)}
	j.Process, err = Start("jaeger", filepath.Join(dir, "jaeger.log"), Environ(
		"BASIS_JAEGER_SPANS="+j.Addr,
		"BASIS_JAEGER_QUERY="+local(ports.UI),
		"BASIS_JAEGER_QUERY_GRPC="+local(ports.GRPC),
		"BASIS_JAEGER_OTLP="+j.OTLP,
		"BASIS_JAEGER_UI="+ui,
	), path, "--config", "file:"+config)
	if err != nil {
		return nil, err
	}
	if err = j.waitHTTP(ctx, j.URL+"/api/services"); err == nil {
		err = jaegerui.Check(ctx, j.URL)
	}
	if err != nil {
		_ = j.Stop(syscall.SIGKILL)
		return nil, err
	}
	return j, nil
}
