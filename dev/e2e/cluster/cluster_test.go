//go:build linux

// Package cluster breaks a cluster of several hosts under load, and measures what comes of it. Each
// file in testdata/faults is a script for a cluster of its own: three Consul servers, hosts with
// servers, hosts with clients, and Jaeger, in network namespaces. It takes root and what "make tools"
// builds: "make e2e-cluster".
package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/cluster"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// patience is how long conditions are waited for. Most are fulfilled within seconds.
const patience = 90 * time.Second

var (
	onCluster   = flag.Bool("cluster", false, "run the scripts, as root")
	required    = flag.Bool("required", false, "fail where root, a command, Consul or Jaeger is missing, instead of leaving the scripts out")
	reliability = flag.String("reliability", "", "add what was measured to this file, as a table")
)

// Set by setUp; empty where the scripts are left out.
var (
	dir            string // of everything that the scripts write, and of srv and client
	consul, jaeger string // paths of the programs
)

// networks are those of all running scripts, for an interruption.
var networks struct {
	sync.Mutex
	ended bool
	all   []*cluster.Cluster
}

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "3") // scripts mostly wait
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !*onCluster {
		return m.Run()
	}
	if err := setUp(); err != nil {
		if *required {
			fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
			return 1
		}
		fmt.Printf("scripts on a cluster left out: %v\n", err)
		return m.Run()
	}
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		sig := <-interrupted
		closeAll()
		os.RemoveAll(dir)
		fmt.Fprintf(os.Stderr, "cluster: %v; everything that ran was stopped\n", sig)
		os.Exit(1)
	}()
	if status := m.Run(); status != 0 {
		return status
	}
	if err := writeReliability(); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1
	}
	return 0
}

// setUp builds the pair, or returns why the scripts cannot run.
func setUp() (err error) {
	if err := cluster.Usable(); err != nil {
		return err
	}
	if consul, jaeger, err = binaries.FindAll(); err != nil {
		return fmt.Errorf("%w; \"make tools\" builds what is missing", err)
	}
	root, err := rootDir()
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp("", "basis-cluster-")
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", made+string(filepath.Separator), "./srv", "./client")
	build.Dir = root
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		os.RemoveAll(made)
		return fmt.Errorf("building the pair: %w", err)
	}
	dir = made
	return nil
}

// rootDir returns the directory of the pair's module; asking go once is enough.
var rootDir = sync.OnceValues(project.Root)

// closeAll ends all clusters, and lets none start any more.
func closeAll() {
	networks.Lock()
	defer networks.Unlock()
	networks.ended = true
	var closing sync.WaitGroup
	for _, c := range networks.all {
		closing.Go(c.Close)
	}
	closing.Wait()
}

// start starts a cluster that is closed with the script, or when the tests are interrupted.
func start(ctx context.Context, dir string, servers, clients int) (*cluster.Cluster, error) {
	networks.Lock() // so that an interruption waits until the network can be closed
	if networks.ended {
		networks.Unlock()
		return nil, errors.New("interrupted")
	}
	c, err := cluster.New(dir, consul, jaeger, servers, clients)
	if err == nil {
		networks.all = append(networks.all, c)
	}
	networks.Unlock()
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// alone are the scripts that measure how many calls the machine makes, or how fast: they run before
// all others, one at a time.
var alone = []string{"01_poweroff", "08_jaeger"}

func TestFaults(t *testing.T) {
	if dir == "" {
		t.Skip(`takes root, what "make tools" builds, and some minutes: "make e2e-cluster"`)
	}
	files, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata/faults: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(alone, name) {
				t.Parallel()
			}
			var s *session
			t.Cleanup(func() {
				if t.Failed() {
					return
				}
				if s == nil || s.row.Calls == 0 {
					t.Errorf("the script ended before it said how many calls failed")
					return
				}
				recordRow(name, s.row)
			})
			testscript.Run(t, testscript.Params{
				Files:       []string{file},
				WorkdirRoot: dir,
				Setup: func(env *testscript.Env) error {
					s = &session{dir: env.WorkDir}
					env.Values[sessionKey{}] = s
					env.Defer(func() {
						if s.Cluster != nil {
							s.Close()
						}
					})
					return nil
				},
				Cmds: commands,
			})
		})
	}
}
