package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// goBuild builds packages of the module in dir into out.
func goBuild(ctx context.Context, dir, out string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", out + string(filepath.Separator)}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s in %s: %w", strings.Join(args, " "), dir, err)
	}
	return nil
}

// Where build puts what it builds, below its directory.
const (
	equalDir   = "equal"   // all programs, with the same flags and without a profile
	shippedDir = "shipped" // srv, client and the contender that stands for the pair, as the pair's users build them
)

// buildFlags are the Dockerfile's.
var buildFlags = []string{"-trimpath", "-ldflags=-s -w"}

// build builds the pair and the contenders into equalDir and shippedDir, below dir. Only the
// pair's projects have a profile; it is for the pair as shipped.
func build(ctx context.Context, root, dir string) error {
	bench := filepath.Join(root, "dev", "bench")
	equal, shipped := filepath.Join(dir, equalDir), filepath.Join(dir, shippedDir)
	noProfile := append(slices.Clone(buildFlags), "-pgo=off")
	var contenders []string
	for _, program := range programs() {
		contenders = append(contenders, "./contender/"+program)
	}
	if err := goBuild(ctx, root, equal, append(noProfile, "./srv", "./client")...); err != nil {
		return err
	}
	if err := goBuild(ctx, bench, equal, append(noProfile, contenders...)...); err != nil {
		return err
	}
	if err := goBuild(ctx, root, shipped, append(slices.Clone(buildFlags), "./srv", "./client")...); err != nil { // with the default.pgo beside each main.go
		return err
	}
	profile := filepath.Join(root, "client", "default.pgo")
	if _, err := os.Stat(profile); errors.Is(err, fs.ErrNotExist) {
		profile = "off"
	}
	return goBuild(ctx, bench, shipped, append(slices.Clone(buildFlags), "-pgo="+profile, "./contender/basis")...)
}

// path returns the path of a program of e, which is built in dir.
func (e entry) path(dir, program string) string {
	if e.shipped && e.pair {
		return filepath.Join(dir, shippedDir, program)
	}
	return filepath.Join(dir, equalDir, program)
}

// timeBuilds builds both programs n times, each time with another change to one
// file, and returns how many seconds each took. Nothing else is built anew but
// what depends on that file, after a first time.
func timeBuilds(ctx context.Context, root, dir string, n int) ([]float64, error) {
	changed := filepath.Join(root, "tracer", "tracer.go") // which both programs are built from
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
		// A comment would not do: what is made of the file has to change.
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
