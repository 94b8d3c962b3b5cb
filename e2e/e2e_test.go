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

	"github.com/gomicroexample/basis/internal/backend"
	"github.com/gomicroexample/basis/internal/tool"
)

// patience is how long conditions are waited for. Most are fulfilled within a
// second; a busy machine may take longer.
const patience = 60 * time.Second

// required makes tools that are missing an error.
var required = flag.Bool("required", false, "fail where Consul, Jaeger, grpcurl or ghz is missing, instead of leaving the scripts out")

// The backends that scripts share.
var (
	binaries   string // directory of srv, client, certs, trace and the tools
	plain      string // the same without the race detector, and faulty
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
	tools := map[string]string{} // paths by name
	for _, t := range []tool.Tool{tool.Consul, tool.Jaeger, tool.Grpcurl, tool.Ghz} {
		path, err := t.Find()
		if errors.Is(err, tool.ErrMissing) && !*required {
			fmt.Printf("end-to-end scripts left out (%v); \"make e2e\" builds what is missing and runs them\n", err)
			return m.Run()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
			return 1
		}
		tools[t.Name] = path
	}
	consul, jaegerPath = tools["consul"], tools["jaeger"]
	stop, err := setUp(tools)
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

// setUp builds the pair, certs and trace, and starts the Jaeger that all scripts share:
// traces are told apart by their IDs. Consul is started by each script, since what
// is registered in it is not.
func setUp(tools map[string]string) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "basis-e2e-")
	if err != nil {
		return nil, err
	}
	stop = func() { os.RemoveAll(dir) }
	binaries, plain = filepath.Join(dir, "race"), filepath.Join(dir, "plain")
	for bin, args := range map[string][]string{
		binaries: {"-race", "../srv", "../client", "../tools/certs", "../tools/trace"},
		plain:    {"../srv", "../client", "./faulty"},
	} {
		build := exec.Command("go", append([]string{"build", "-o", bin + string(filepath.Separator)}, args...)...)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			stop()
			return nil, fmt.Errorf("building srv, client and what the scripts need besides: %w", err)
		}
		for name, path := range tools {
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				stop()
				return nil, err
			}
		}
	}
	// For scripts that measure memory, which the race detector multiplies.
	if err := os.Symlink(filepath.Join(plain, "srv"), filepath.Join(binaries, "plainsrv")); err != nil {
		stop()
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if jaeger, err = backend.StartJaeger(ctx, jaegerPath, dir, 0, 0); err != nil {
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
	protoDir, err := filepath.Abs("../proto")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			setEnv(env, binaries)
			env.Setenv("PROTO", protoDir)
			env.Setenv("NL", "\n")
			env.Setenv("ESC", "\x1b")
			env.Values[sessionKey{}] = newSession(env, binaries)
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
	env.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
}
