//go:build linux

// Package cluster breaks clusters of several hosts under load, and counts the calls that fail. Each
// script in testdata/faults has its own cluster: three Consul servers, hosts with servers, hosts
// with clients, and Jaeger, in network namespaces. "make e2e-cluster" runs the scripts, which need
// root and the tools of "make tools". TestSwarm breaks a swarm of Docker engines in the same way.
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

// patience is the maximum time to wait for a condition. Most conditions become true within seconds.
const patience = 90 * time.Second

var (
	onCluster   = flag.Bool("cluster", false, "run the scripts, as root")
	onSwarm     = flag.Bool("swarm", false, "run the test of a swarm, as root, with the images of docker-compose.yml on the Docker engine that answers")
	required    = flag.Bool("required", false, "fail where root, a command, Consul or Jaeger is missing, instead of skipping the scripts")
	reliability = flag.String("reliability", "", "write the measured numbers to this file, as a table")
)

// run sets these variables before the tests. dir is empty if the tests are skipped.
var (
	dir            string // the directory of srv, client, and all files that the tests write
	consul, jaeger string // paths of the programs
)

// networks has the networks of all tests. An interruption closes the networks.
var networks struct {
	sync.Mutex
	ended bool
	all   []interface{ Close() }
}

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "3") // scripts mostly wait
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !*onCluster && !*onSwarm {
		return m.Run()
	}
	// /tmp may be in memory, where a Docker engine's file systems do not work. But /var/tmp is on a
	// disk.
	made, err := os.MkdirTemp("/var/tmp", "basis-cluster-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1
	}
	defer os.RemoveAll(made)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		sig := <-interrupted
		closeAll()
		os.RemoveAll(made)
		fmt.Fprintf(os.Stderr, "cluster: %v; everything that ran was stopped\n", sig)
		os.Exit(1)
	}()
	if err := setUp(made); err != nil {
		if *required {
			fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
			return 1
		}
		fmt.Printf("faults on several hosts skipped: %v\n", err)
		return m.Run()
	}
	dir = made
	if status := m.Run(); status != 0 {
		return status
	}
	if err := writeReliability(); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1
	}
	return 0
}

// setUp finds or builds the programs that the tests run. If the tests cannot run on this machine,
// it returns the reason as an error.
func setUp(dir string) (err error) {
	if *onSwarm {
		if err := cluster.EngineUsable(); err != nil {
			return err
		}
	}
	if !*onCluster {
		return nil
	}
	if err := cluster.Usable(); err != nil {
		return err
	}
	if consul, jaeger, err = binaries.FindAll(); err != nil {
		return fmt.Errorf("%w; \"make tools\" builds the missing tools", err)
	}
	root, err := rootDir()
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./srv", "./client")
	build.Dir = root
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the pair: %w", err)
	}
	return nil
}

// rootDir returns the directory of the pair's module. It runs the go command once, and keeps the
// result.
var rootDir = sync.OnceValues(project.Root)

// closeAll closes all networks, and prevents new networks.
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

// start starts a cluster. The cluster is closed when the tests are interrupted.
func start(ctx context.Context, dir string, servers, clients int) (*cluster.Cluster, error) {
	c, err := register(func() (*cluster.Cluster, error) {
		return cluster.New(dir, consul, jaeger, servers, clients)
	})
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// register calls create, which returns a network or a cluster. If the tests are interrupted later,
// the interruption closes this network or cluster.
func register[T interface{ Close() }](create func() (T, error)) (T, error) {
	networks.Lock() // so that an interruption waits until the network can be closed
	defer networks.Unlock()
	if networks.ended {
		var none T
		return none, errors.New("interrupted")
	}
	n, err := create()
	if err == nil {
		networks.all = append(networks.all, n)
	}
	return n, err
}

// alone lists the scripts that measure rates or latencies, or need most of the machine. These
// scripts run one at a time, before all other scripts.
var alone = []string{"01_poweroff", "08_jaeger", "11_many"}

func TestFaults(t *testing.T) {
	if dir == "" || !*onCluster {
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
				hostsSection.record(name, s.row)
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
