// Package tool finds the Consul and Jaeger that the demo and the end-to-end
// tests run on, and the gRPC clients that the tests call with, and builds them from
// source where there are none.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Tool is a program with a module of its own under tools/.
type Tool struct {
	Name     string   // of the program and of its folder
	Version  string   // of the module that it is built from
	Variable string   // names a binary to use instead
	pkg      string   // what to build
	ldflags  string   // how
	ask      string   // the argument that makes a binary tell its version
	versions []string // what a binary of the same version may say then
	minutes  int      // how long a build takes on two cores, about
}

// Consul and Jaeger, at the versions in their go.mod.
var (
	Consul = Tool{
		Name: "consul", Version: "1.22.6", Variable: "CONSUL_BIN",
		pkg:      "github.com/hashicorp/consul",
		ldflags:  "-s -w",
		ask:      "version",
		versions: []string{"Consul v1.22.6"},
		minutes:  7,
	}
	// Jaeger 2.13.0 is cmd/jaeger of the module's v1.76.0.
	Jaeger = Tool{
		Name: "jaeger", Version: "1.76.0", Variable: "JAEGER_BIN",
		pkg:      "github.com/jaegertracing/jaeger/cmd/jaeger",
		ldflags:  "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v1.76.0",
		ask:      "version",
		versions: []string{`"gitVersion":"v1.76.0"`, `"gitVersion":"v2.13.0"`},
		minutes:  6,
	}
)

// Grpcurl and Ghz are gRPC clients that know nothing of go-micro: one makes a
// single call, the other many.
var (
	Grpcurl = Tool{
		Name: "grpcurl", Version: "1.9.4", Variable: "GRPCURL_BIN",
		pkg:      "github.com/fullstorydev/grpcurl/cmd/grpcurl",
		ldflags:  "-s -w -X main.version=v1.9.4",
		ask:      "--version",
		versions: []string{"grpcurl v1.9.4"},
		minutes:  1,
	}
	Ghz = Tool{
		Name: "ghz", Version: "0.121.0", Variable: "GHZ_BIN",
		pkg:      "github.com/bojand/ghz/cmd/ghz",
		ldflags:  "-s -w -X main.version=v0.121.0",
		ask:      "--version",
		versions: []string{"v0.121.0"},
		minutes:  1,
	}
)

// ErrMissing says that a tool is neither named, built nor installed.
var ErrMissing = errors.New("not found")

// Dir returns where built tools are kept: basis/bin in the user's cache, which
// is XDG_CACHE_HOME or, without that, .cache in the home directory.
func Dir() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no cache directory: %w; set XDG_CACHE_HOME", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "basis", "bin"), nil
}

// Find returns the path of a binary of t: the one that its variable names, the
// one that Build made, or one of the same version on PATH. Without any, the
// error is ErrMissing; a variable that names no executable is another error.
func (t Tool) Find() (string, error) {
	if path := os.Getenv(t.Variable); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("%s: %w", t.Variable, err)
		}
		return filepath.Abs(path)
	}
	built, err := t.built()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	if path, err := exec.LookPath(t.Name); err == nil && t.isVersion(path) {
		return path, nil
	}
	return "", fmt.Errorf("%s %s: %w", t.Name, t.Version, ErrMissing)
}

// FindAll returns the paths of Consul and Jaeger, or the error of the first that
// Find does not find.
func FindAll() (consul, jaeger string, err error) {
	if consul, err = Consul.Find(); err != nil {
		return "", "", err
	}
	jaeger, err = Jaeger.Find()
	return consul, jaeger, err
}

// built is where Build puts the binary.
func (t Tool) built() (string, error) {
	dir, err := Dir()
	return filepath.Join(dir, t.Name+"-"+t.Version), err
}

// isVersion asks the binary at path for its version.
func (t Tool) isVersion(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, t.ask).CombinedOutput()
	for _, v := range t.versions {
		if strings.Contains(string(out), v) {
			return true
		}
	}
	return false
}

// Build builds t from source into Dir, unless Find finds it, and returns its
// path. The module with the pinned sources is below root, the project's top
// directory. What it does, and how long that takes, goes to log.
func (t Tool) Build(ctx context.Context, root string, log io.Writer) (string, error) {
	path, err := t.Find()
	if err == nil {
		fmt.Fprintf(log, "%s %s: %s\n", t.Name, t.Version, path)
		return path, nil
	}
	if !errors.Is(err, ErrMissing) {
		return "", err
	}
	if path, err = t.built(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "%s %s: building from source, once on this machine; about %d min on two cores ...\n", t.Name, t.Version, t.minutes)
	start := time.Now()

	// Built beside its place and moved there, so that an interrupted build is
	// not taken for a finished one.
	unfinished := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(unfinished)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", t.ldflags, "-o", unfinished, t.pkg)
	build.Dir = filepath.Join(root, "tools", t.Name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // runs in any container
	build.Stdout, build.Stderr = log, log
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building %s %s in %s: %w", t.Name, t.Version, build.Dir, err)
	}
	if err := os.Rename(unfinished, path); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "%s %s: built in %v: %s\n", t.Name, t.Version, time.Since(start).Round(time.Second), path)
	return path, nil
}
