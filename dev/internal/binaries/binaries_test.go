package binaries_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/binaries"
)

// script writes an executable to path, and returns path. The executable prints text.
func script(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\ncat <<'E'\n%s\nE\n", text), 0o755))
	return path
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("CONSUL_BIN", "")
	t.Setenv("PATH", filepath.Join(dir, "path")+":/usr/bin:/bin")

	_, err := binaries.Consul.Find()
	require.ErrorIs(t, err, binaries.ErrMissing)

	onPath := filepath.Join(dir, "path", "consul")
	script(t, onPath, "Consul v1.21.0")
	_, err = binaries.Consul.Find()
	require.ErrorIs(t, err, binaries.ErrMissing, "another version")

	script(t, onPath, "Consul v1.22.6\nRevision 0")
	got, err := binaries.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, onPath, got)

	built := script(t, filepath.Join(dir, "basis", "bin", "consul-1.22.6"), "")
	got, err = binaries.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, built, got)

	named := script(t, filepath.Join(dir, "any"), "")
	t.Setenv("CONSUL_BIN", named)
	got, err = binaries.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, named, got)

	t.Setenv("CONSUL_BIN", filepath.Join(dir, "none"))
	_, err = binaries.Consul.Find()
	require.ErrorContains(t, err, "CONSUL_BIN")
	require.NotErrorIs(t, err, binaries.ErrMissing)
}

func TestVersionsAreThoseOfTheModules(t *testing.T) {
	for _, test := range []struct {
		binary binaries.Binary
		module string
	}{
		{binaries.Consul, "github.com/hashicorp/consul"},
		{binaries.Jaeger, "github.com/jaegertracing/jaeger"},
		{binaries.Grpcurl, "github.com/fullstorydev/grpcurl"},
		{binaries.Ghz, "github.com/bojand/ghz"},
		{binaries.HealthProbe, "github.com/grpc-ecosystem/grpc-health-probe"},
		{binaries.Prometheus, "github.com/prometheus/prometheus"},
		{binaries.Promtool, "github.com/prometheus/prometheus"},
	} {
		mod, err := os.ReadFile(filepath.Join("..", "..", "tools", test.binary.Folder(), "go.mod"))
		require.NoError(t, err)
		require.Regexp(t, fmt.Sprintf(`(?m)^(require|\t)\s*%s v%s( // indirect)?$`, test.module, test.binary.Version), string(mod))
	}
}
