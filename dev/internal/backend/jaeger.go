package backend

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

//go:embed jaeger.yaml
var jaegerConfig []byte

// Jaeger is a Jaeger on this machine that keeps traces in memory.
type Jaeger struct {
	*Process
	Addr string // host:port that takes spans over UDP
	URL  string // of its UI and API
}

// JaegerPorts are the ports that a Jaeger listens on. A port that is 0 or not free is
// replaced by a free one.
type JaegerPorts struct {
	UI    int // and HTTP API
	Spans int // over UDP
	GRPC  int // API, which nothing here calls
}

// DefaultJaegerPorts are Jaeger's own.
var DefaultJaegerPorts = JaegerPorts{UI: 16686, Spans: 6831, GRPC: 16685}

// StartJaeger runs the Jaeger at path with its log in dir, and waits until its API
// answers.
func StartJaeger(ctx context.Context, path, dir string, ports JaegerPorts) (*Jaeger, error) {
	if err := orFree(&ports.UI, &ports.Spans, &ports.GRPC); err != nil {
		return nil, fmt.Errorf("ports for Jaeger: %w", err)
	}
	config := filepath.Join(dir, "jaeger.yaml")
	if err := os.WriteFile(config, jaegerConfig, 0o644); err != nil {
		return nil, err
	}
	j := &Jaeger{Addr: local(ports.Spans), URL: "http://" + local(ports.UI)}
	var err error
	j.Process, err = Start("jaeger", filepath.Join(dir, "jaeger.log"), Environ(
		"BASIS_JAEGER_SPANS="+j.Addr,
		"BASIS_JAEGER_QUERY="+local(ports.UI),
		"BASIS_JAEGER_QUERY_GRPC="+local(ports.GRPC),
	), path, "--config", "file:"+config)
	if err != nil {
		return nil, err
	}
	if err := j.waitHTTP(ctx, j.URL+"/api/services"); err != nil {
		_ = j.Stop(syscall.SIGKILL)
		return nil, err
	}
	return j, nil
}

// HasUI reports whether this Jaeger shows more than a placeholder page.
func (j *Jaeger) HasUI(ctx context.Context) bool {
	body, err := Get(ctx, j.URL+"/")
	return err == nil && !bytes.Contains(body, []byte("not the Jaeger UI"))
}
