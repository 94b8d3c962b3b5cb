package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// goBuild runs go build with args in the directory dir, and writes the binaries into the directory
// out.
func goBuild(ctx context.Context, dir, out string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", out + string(filepath.Separator)}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s in %s: %w", strings.Join(args, " "), dir, err)
	}
	return nil
}

// buildFlags are the flags of go build in the Dockerfile.
var buildFlags = []string{"-trimpath", "-ldflags=-s -w"}

// build builds the pair and the contenders into dir.
func build(ctx context.Context, root, dir string) error {
	var contenders []string
	for _, program := range programs() {
		contenders = append(contenders, "./contender/"+program)
	}
	if err := goBuild(ctx, root, dir, slices.Concat(buildFlags, []string{"./srv", "./client"})...); err != nil {
		return err
	}
	return goBuild(ctx, filepath.Join(root, "dev", "bench"), dir, slices.Concat(buildFlags, contenders)...)
}

// timeBuilds builds srv and client n times and returns the seconds that each build took. Before
// each build, one file changes. Go rebuilds only the packages that depend on this file. An untimed
// first build puts all other packages into Go's cache.
func timeBuilds(ctx context.Context, root, dir string, n int) ([]float64, error) {
	changed := filepath.Join(root, "tracer", "tracer.go") // both programs use it
	original, err := os.ReadFile(changed)
	if err != nil {
		return nil, err
	}
	replacement, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{changed: replacement}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		return nil, err
	}
	var took []float64
	for i := range n + 1 {
		// A new comment would not be enough: the compiled package has to change.
		text := fmt.Sprintf("%s\n// Changed is new.\nvar Changed = %q\n", original, time.Now())
		if err := os.WriteFile(replacement, []byte(text), 0o644); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := goBuild(ctx, root, filepath.Join(dir, "changed"), "-overlay="+overlay, "./srv", "./client"); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, time.Since(start).Seconds())
		}
	}
	return took, nil
}
