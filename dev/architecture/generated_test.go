package architecture_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/project"
)

func TestGeneratedCodeIsCurrent(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	dir := t.TempDir()
	cmd := exec.Command("make", "proto", "PROTO_OUT="+dir)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	for _, name := range []string{"basis.pb.go", "basis.micro.go"} {
		committed, err := os.ReadFile(filepath.Join(root, "proto", name))
		require.NoError(t, err)
		generated, err := os.ReadFile(filepath.Join(dir, "proto", name))
		require.NoError(t, err)
		require.True(t, string(committed) == string(generated),
			`proto/%s is not what "make proto" generates from basis.proto; run it and commit the result`, name)
	}
}

// "make proto" generates code from a proto with an optional field, and the pair builds with this
// code. buf only warns that protoc-gen-micro does not declare support for optional fields.
func TestOptionalFieldsCanBeGenerated(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, path := range []string{"Makefile", "proto/basis.proto", "dev/tools/buf", "dev/tools/protoc-gen-go", "dev/tools/protoc-gen-micro"} {
		target := filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(target), 0o755))
		out, err := exec.Command("cp", "-r", filepath.Join(root, path), target).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	path := filepath.Join(dir, "proto", "basis.proto")
	proto, err := os.ReadFile(path)
	require.NoError(t, err)
	const message = "message Request {\n"
	changed := strings.Replace(string(proto), message, message+"  optional string salutation = 15;\n", 1)
	require.NotEqual(t, string(proto), changed)
	require.NoError(t, os.WriteFile(path, []byte(changed), 0o644))
	cmd := exec.Command("make", "proto")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	overlay := map[string]map[string]string{"Replace": {}}
	for _, name := range []string{"basis.pb.go", "basis.micro.go"} {
		overlay["Replace"][filepath.Join(root, "proto", name)] = filepath.Join(dir, "proto", name)
	}
	data, err := json.Marshal(overlay)
	require.NoError(t, err)
	overlayFile := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, data, 0o644))
	cmd = exec.Command("go", "build", "-overlay="+overlayFile, "./proto", "./srv", "./client")
	cmd.Dir = root
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	messages, err := os.ReadFile(filepath.Join(dir, "proto", "basis.pb.go"))
	require.NoError(t, err)
	require.Regexp(t, `Salutation +\*string`, string(messages), "an unset field must differ from an empty field")
}
