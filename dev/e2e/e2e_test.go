// Package e2e is the article as executable scripts: each file in
// testdata/script is a terminal session with the real srv and client, a real
// Consul and a real Jaeger, and says what must come of each command. Those in
// testdata/faults break something under load, and measure what comes of it.
// TestDocuments does what the documents say.
//
// Both binaries are built with the race detector, and a race ends them, but where
// something is measured.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// patience is how long conditions are waited for. Most are fulfilled within a
// second; a busy machine may take longer.
const patience = 60 * time.Second

// required makes tools that are missing an error.
var required = flag.Bool("required", false, "fail where Consul, Jaeger, Prometheus or a gRPC client is missing, instead of leaving the scripts out")

// The backends that scripts share.
var (
	race       string // directory of srv, client, certs, timeline and others' programs
	plain      string // directory of srv, client and faulty, without the race detector, and others' programs
	consul     string // path of Consul
	jaegerPath string
	jaeger     *backend.Jaeger
)

func TestMain(m *testing.M) {
	// Scripts wait more than they work, so more of them than there are
	// processors can run at once.
	_ = flag.Set("test.parallel", "4")
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	paths := map[string]string{} // by name
	for _, b := range []binaries.Binary{binaries.Consul, binaries.Jaeger, binaries.Grpcurl, binaries.Ghz, binaries.HealthProbe, binaries.Prometheus, binaries.Promtool} {
		path, err := b.Find()
		if errors.Is(err, binaries.ErrMissing) && !*required {
			fmt.Printf("end-to-end scripts left out (%v); \"make e2e\" builds what is missing and runs them\n", err)
			return m.Run()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
			return 1
		}
		paths[b.Name] = path
	}
	consul, jaegerPath = paths["consul"], paths["jaeger"]
	stop, err := setUp(paths)
	if err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		return 1
	}
	defer stop()
	if status := m.Run(); status != 0 {
		return status
	}
	if err := writeReliability(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		return 1
	}
	return 0
}

// setUp builds the pair and what the scripts need besides, puts it beside others'
// programs, whose paths it is given by name, and starts the Jaeger that all scripts
// share: IDs tell traces apart. Each script starts a Consul of its own, since nothing
// tells registrations apart.
func setUp(paths map[string]string) (stop func(), err error) {
	root, err := project.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "basis-e2e-")
	if err != nil {
		return nil, err
	}
	stop = func() { os.RemoveAll(dir) }
	race, plain = filepath.Join(dir, "race"), filepath.Join(dir, "plain")
	for _, b := range []struct {
		module, bin string
		args        []string
	}{
		{root, race, []string{"-race", "./srv", "./client"}},
		{filepath.Join(root, "dev"), race, []string{"-race", "./tools/certs", "./tools/timeline"}},
		{root, plain, []string{"./srv", "./client"}},
		{filepath.Join(root, "dev"), plain, []string{"./e2e/faulty"}},
		{filepath.Join(root, "dev"), filepath.Join(race, "modern"), []string{"-race", "./modern/client", "./modern/server"}},
	} {
		build := exec.Command("go", append([]string{"build", "-o", b.bin + string(filepath.Separator)}, b.args...)...)
		build.Dir = b.module
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			stop()
			return nil, fmt.Errorf("building %v in %s: %w", b.args, b.module, err)
		}
	}
	for _, bin := range []string{race, plain} {
		for name, path := range paths {
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				stop()
				return nil, err
			}
		}
	}
	for name, path := range map[string]string{
		// For scripts that measure memory, which the race detector multiplies.
		"plainsrv": filepath.Join(plain, "srv"),
		// These have the names of other programs.
		"modernclient": filepath.Join(race, "modern", "client"),
		"modernserver": filepath.Join(race, "modern", "server"),
	} {
		if err := os.Symlink(path, filepath.Join(race, name)); err != nil {
			stop()
			return nil, err
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if jaeger, err = backend.StartJaeger(ctx, jaegerPath, dir, backend.JaegerPorts{}); err != nil {
		stop()
		return nil, err
	}
	return func() {
		_ = jaeger.Stop(term)
		os.RemoveAll(dir)
	}, nil
}

// needTools leaves a test out where setUp did not run.
func needTools(t *testing.T) {
	if jaeger == nil {
		t.Skip(`needs what "make tools" builds`)
	}
}

func TestScripts(t *testing.T) {
	needTools(t)
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			setEnv(env, race)
			env.Setenv("PROTO", filepath.Join(root, "proto"))
			env.Setenv("NL", "\n")
			env.Setenv("ESC", "\x1b")
			env.Values[sessionKey{}] = newSession(env, race)
			return nil
		},
		Cmds: commands,
		Condition: func(condition string) (bool, error) {
			if condition == "ipv6" {
				l, err := net.Listen("tcp", "[::1]:0")
				if err != nil {
					return false, nil
				}
				return true, l.Close()
			}
			return false, fmt.Errorf("unknown condition %q", condition)
		},
	})
}

// setEnv gives a script the binaries in bin and the backends that all share.
func setEnv(env *testscript.Env, bin string) {
	env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("JAEGER_ADDRESS", jaeger.Addr)
	env.Setenv("JAEGER_API", jaeger.URL)
	env.Setenv("OTLP", jaeger.OTLP)
	env.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
}
