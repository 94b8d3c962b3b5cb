package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/project"
)

// What "make pgo" wrote is of both programs, and both are built with it.
func TestProfile(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	srv, err := os.ReadFile(filepath.Join(root, "srv", "default.pgo"))
	require.NoError(t, err)
	client, err := os.ReadFile(filepath.Join(root, "client", "default.pgo"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(srv, client), "client has a profile of its own")

	p, err := profile.ParseData(srv)
	require.NoError(t, err)
	require.Equal(t, "cpu", p.PeriodType.Type)
	for _, dir := range []string{"srv/", "client/"} {
		nanoseconds := int64(0)
		for _, s := range p.Sample {
			if isIn(s, "github.com/gomicroexample/basis/"+dir) {
				nanoseconds += s.Value[1]
			}
		}
		require.Positive(t, nanoseconds, "no sample is in %s", dir)
	}
}

// isIn tells whether a function of a sample's stack is in a file below dir.
func isIn(s *profile.Sample, dir string) bool {
	for _, location := range s.Location {
		for _, line := range location.Line {
			if strings.HasPrefix(line.Function.Filename, dir) {
				return true
			}
		}
	}
	return false
}
