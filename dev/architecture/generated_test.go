package architecture_test

import (
	"os"
	"os/exec"
	"path/filepath"
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
