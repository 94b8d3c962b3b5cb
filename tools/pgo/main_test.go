package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"
)

// What "make pgo" wrote is of both programs, and both are built with it, and so is
// the client of the bench.
func TestProfile(t *testing.T) {
	root := filepath.Join("..", "..")
	path := filepath.Join(root, "srv", "default.pgo")
	info, err := os.Stat(path)
	require.NoError(t, err)
	for _, dir := range []string{"client", "bench/contender/basis"} {
		other, err := os.Stat(filepath.Join(root, dir, "default.pgo"))
		require.NoError(t, err)
		require.True(t, os.SameFile(info, other), "%s has a profile of its own", dir)
	}

	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	p, err := profile.Parse(f)
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
