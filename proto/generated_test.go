package proto_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// protocVersion is the line that tells which protoc was used. Others of the
// same major version make the same code.
var protocVersion = regexp.MustCompile(`(?m)^// \tprotoc .*$`)

func TestGeneratedCodeIsCurrent(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Skip("no protoc on PATH; install protobuf-compiler to check the generated code")
	}
	// Reading what the code depends on tells go test when to run this again.
	for _, source := range []string{"basis.proto", "../Makefile", "../go.mod", "../tools/protoc-gen-micro/go.mod"} {
		_, err := os.ReadFile(source)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	cmd := exec.Command("make", "proto", "PROTO_OUT="+dir)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	for _, name := range []string{"basis.pb.go", "basis.micro.go"} {
		committed, err := os.ReadFile(name)
		require.NoError(t, err)
		made, err := os.ReadFile(filepath.Join(dir, "proto", name))
		require.NoError(t, err)
		strip := func(code []byte) []byte { return protocVersion.ReplaceAll(code, nil) }
		require.True(t, bytes.Equal(strip(committed), strip(made)),
			`%s is not what "make proto" makes of basis.proto; run it and commit the result`, name)
	}
}
