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

// StartJaeger runs the Jaeger at path with its log in dir, and waits until it
// can be asked. Its UI is on uiPort, and it takes spans on spansPort, if those
// are free, and on others otherwise.
func StartJaeger(ctx context.Context, path, dir string, uiPort, spansPort int) (*Jaeger, error) {
	ports, err := FreePorts(3)
	if err != nil {
		return nil, fmt.Errorf("ports for Jaeger: %w", err)
	}
	if uiPort == 0 || !isFree(uiPort) {
		uiPort = ports[0]
	}
	if spansPort == 0 || !isFreeUDP(spansPort) {
		spansPort = ports[1]
	}
	config := filepath.Join(dir, "jaeger.yaml")
	if err := os.WriteFile(config, jaegerConfig, 0o644); err != nil {
		return nil, err
	}
	j := &Jaeger{Addr: local(spansPort), URL: "http://" + local(uiPort)}
	j.Process, err = Start("jaeger", filepath.Join(dir, "jaeger.log"), Environ(
		"BASIS_JAEGER_SPANS="+j.Addr,
		"BASIS_JAEGER_QUERY="+local(uiPort),
		"BASIS_JAEGER_QUERY_GRPC="+local(ports[2]),
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
