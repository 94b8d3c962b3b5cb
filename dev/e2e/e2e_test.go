// Package e2e tests the article's steps end to end. Each script in testdata/script is a terminal
// session with the real srv and client, a real Consul and a real Jaeger. A script has commands and
// checks their results. The scripts in testdata/faults break something under load, and measure
// how many calls fail. TestDocuments runs the commands in the documents.
//
// The tests build srv and client with the race detector, and a data race makes a program exit.
// Tests that measure something use programs without the race detector.
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

// patience is the maximum time to wait for a condition. Most conditions hold within a second, but
// a busy machine may take longer.
const patience = 60 * time.Second

// required makes a missing tool an error. Without -required, the scripts are skipped if a tool is
// missing.
var required = flag.Bool("required", false, "fail where Consul, Jaeger, Prometheus or a gRPC client is missing, instead of skipping the scripts")

// The programs and the Jaeger that all scripts share. The functions run and setUp set these
// variables.
var (
	race       string // directory of srv, client, certs and timeline, with the race detector, and of the tools
	plain      string // directory of srv, client and faulty, without the race detector, and of the tools
	consul     string // path of Consul
	jaegerPath string
	jaeger     *backend.Jaeger // nil if a tool is missing
)

func TestMain(m *testing.M) {
	// Scripts mostly wait, so four of them can run in parallel, even on fewer processors.
	_ = flag.Set("test.parallel", "4")
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	paths := map[string]string{} // of the tools, by name
	for _, b := range []binaries.Binary{binaries.Consul, binaries.Jaeger, binaries.Grpcurl, binaries.Ghz, binaries.HealthProbe, binaries.Prometheus, binaries.Promtool} {
		path, err := b.Find()
		if errors.Is(err, binaries.ErrMissing) && !*required {
			fmt.Printf("end-to-end scripts skipped (%v); \"make e2e\" builds the missing tools and runs the scripts\n", err)
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

// setUp builds the programs that the scripts run, and links the tools into the same directories.
// paths has the tools' paths by name. Then setUp starts the Jaeger. The returned function stops the
// Jaeger and removes all files of setUp.
//
// All scripts can share one Jaeger, because IDs distinguish the traces of different scripts. Each
// script needs its own Consul, because nothing distinguishes the registrations of different
// scripts.
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
		// Scripts that measure memory run plainsrv, because a program with the race detector uses
		// several times as much memory.
		"plainsrv": filepath.Join(plain, "srv"),
		// The binaries' own names are client and server, so give them distinct names.
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

// needTools skips a test if a tool is missing, because setUp has not run then.
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

// setEnv sets a script's variables: PATH for the binaries in bin, and the addresses of the shared
// Jaeger.
func setEnv(env *testscript.Env, bin string) {
	env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("JAEGER_ADDRESS", jaeger.Addr)
	env.Setenv("JAEGER_API", jaeger.URL)
	env.Setenv("OTLP", jaeger.OTLP)
	env.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
}
