package project_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/project"
)

func TestRootIsTheSameInEachModule(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "srv", "main.go"))
	for _, dir := range []string{".", "dev", "dev/bench"} {
		t.Chdir(filepath.Join(root, dir))
		got, err := project.Root()
		require.NoError(t, err)
		require.Equal(t, root, got)
	}
	t.Chdir(t.TempDir())
	_, err = project.Root()
	require.ErrorContains(t, err, "asking go for the directory of github.com/gomicroexample/basis: ")
}
