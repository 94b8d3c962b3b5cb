package tool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/internal/tool"
)

// script writes an executable that prints out.
func script(t *testing.T, path, out string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\ncat <<'E'\n%s\nE\n", out), 0o755))
	return path
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("CONSUL_BIN", "")
	t.Setenv("PATH", filepath.Join(dir, "path")+":/usr/bin:/bin")

	_, err := tool.Consul.Find()
	require.ErrorIs(t, err, tool.ErrMissing)

	onPath := filepath.Join(dir, "path", "consul")
	script(t, onPath, "Consul v1.21.0")
	_, err = tool.Consul.Find()
	require.ErrorIs(t, err, tool.ErrMissing, "another version")

	script(t, onPath, "Consul v1.22.6\nRevision 0")
	got, err := tool.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, onPath, got)

	built := script(t, filepath.Join(dir, "basis", "bin", "consul-1.22.6"), "")
	got, err = tool.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, built, got)

	named := script(t, filepath.Join(dir, "any"), "")
	t.Setenv("CONSUL_BIN", named)
	got, err = tool.Consul.Find()
	require.NoError(t, err)
	require.Equal(t, named, got)

	t.Setenv("CONSUL_BIN", filepath.Join(dir, "none"))
	_, err = tool.Consul.Find()
	require.ErrorContains(t, err, "CONSUL_BIN")
	require.NotErrorIs(t, err, tool.ErrMissing)
}

func TestVersionsAreThoseOfTheModules(t *testing.T) {
	for _, test := range []struct {
		tool   tool.Tool
		module string
	}{
		{tool.Consul, "github.com/hashicorp/consul"},
		{tool.Jaeger, "github.com/jaegertracing/jaeger"},
		{tool.Grpcurl, "github.com/fullstorydev/grpcurl"},
		{tool.Ghz, "github.com/bojand/ghz"},
	} {
		mod, err := os.ReadFile(filepath.Join("..", "..", "tools", test.tool.Name, "go.mod"))
		require.NoError(t, err)
		require.Regexp(t, fmt.Sprintf(`(?m)^(require|\t)\s*%s v%s( // indirect)?$`, test.module, test.tool.Version), string(mod))
	}
}
