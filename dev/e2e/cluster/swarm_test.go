//go:build linux

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/cluster"
	"github.com/gomicroexample/basis/dev/internal/measured"
)

const (
	swarmServers = 6
	swarmClients = 3
	lostMachine  = "node-3"
)

// deployCommand is the command in docs/containers.md.
const deployCommand = `
docker stack deploy -c docker-compose.yml -c docker-compose.cluster.yml basis
`

// swarmTest is the beginning of a file that changes the stack for the test: each machine publishes
// Consul's API, and the clients make more calls.
const swarmTest = `version: "3.8"
services:
  consul:
    ports: [{target: 8500, published: 8500, mode: host}]
  client:
    environment:
`

// swarm is a stack on a swarm, one engine on each host.
type swarm struct {
	*cluster.Network
	engines map[*cluster.Host]string // URLs of the engines, by running machine
}

func TestSwarm(t *testing.T) {
	if dir == "" || !*onSwarm {
		t.Skip(`takes root, Docker and some minutes: "make e2e-docker"`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	s := newSwarm(t, ctx)
	s.deploy(t, ctx)
	s.awaitNodes(t, ctx)
	s.awaitCalls(t, ctx)

	mark := time.Now()
	s.docker(t, ctx, "service", "update", "--force", "--quiet", "basis_srv")
	row := measured.Row{Fault: "a rolling update of six servers", Allowed: "0"}
	row.Note("updated after %v", time.Since(mark).Round(time.Second))
	s.awaitNodes(t, ctx)
	s.awaitCalls(t, ctx)
	s.count(t, ctx, &row, mark)
	require.Zero(t, row.Failed)
	swarmSection.record("1", row)

	mark = time.Now()
	lost := s.Host(lostMachine)
	require.NoError(t, lost.PowerOff())
	delete(s.engines, lost)
	row = measured.Row{
		Fault:   "the swarm's leader powered off, with a third of the servers; the swarm replaces these servers on the other machines",
		Allowed: "16: each of the eight callers on the other machines loses at most one call at each of the two servers; after 3 s, 0",
	}
	s.awaitNodes(t, ctx)
	row.Note("six servers again after %v", time.Since(mark).Round(time.Second))
	s.awaitCalls(t, ctx)
	last := s.count(t, ctx, &row, mark)
	require.LessOrEqual(t, row.Failed, 16)
	require.Less(t, last.Sub(mark), 3*time.Second, "calls failed later")
	swarmSection.record("2", row)
}

// newSwarm starts three engines with the images of the stack, and joins them into a swarm of three
// managers.
func newSwarm(t *testing.T, ctx context.Context) *swarm {
	network, err := register(func() (*cluster.Network, error) {
		return cluster.NewNetwork(filepath.Join(dir, "swarm"), "node-1", "node-2", "node-3")
	})
	require.NoError(t, err)
	t.Cleanup(network.Close)
	s := &swarm{Network: network, engines: map[*cluster.Host]string{}}
	t.Cleanup(func() { s.report(t) })
	images := imagesOf(t)
	for _, h := range s.Hosts("") {
		url, err := h.StartEngine(ctx)
		require.NoError(t, err)
		s.engines[h] = url
	}
	archive := filepath.Join(dir, "images.tar")
	mustOutput(t, ctx, "docker", append([]string{"save", "--output", archive}, images...)...)
	var loading errgroup.Group
	for _, url := range s.engines {
		loading.Go(func() error {
			_, err := output(ctx, "docker", "--host", url, "load", "--input", archive)
			return err
		})
	}
	require.NoError(t, loading.Wait())
	// The test later powers off this machine, the leader. So the other machines also have to elect
	// a new leader.
	leader := s.Host(lostMachine)
	onLeader := func(args ...string) string {
		return mustOutput(t, ctx, "docker", append([]string{"--host", s.engines[leader]}, args...)...)
	}
	onLeader("swarm", "init", "--advertise-addr="+leader.Addr)
	token := strings.TrimSpace(onLeader("swarm", "join-token", "--quiet", "manager"))
	for h, url := range s.engines {
		if h != leader {
			mustOutput(t, ctx, "docker", "--host", url, "swarm", "join", "--token="+token, "--advertise-addr="+h.Addr, net.JoinHostPort(leader.Addr, "2377"))
		}
	}
	return s
}

// imagesOf returns the images in docker-compose.yml.
func imagesOf(t *testing.T) []string {
	root, err := rootDir()
	require.NoError(t, err)
	file, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	var images []string
	for _, m := range regexp.MustCompile(`(?m)^ +image: (\S+)`).FindAllStringSubmatch(string(file), -1) {
		images = append(images, os.Expand(m[1], func(variable string) string {
			name, fallback, _ := strings.Cut(variable, ":-")
			return cmp.Or(os.Getenv(name), fallback)
		}))
	}
	require.Len(t, images, 4)
	return images
}

// output runs a command in the root directory, and returns the command's stdout.
func output(ctx context.Context, name string, args ...string) (string, error) {
	root, err := rootDir()
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, &errs)
	}
	return out.String(), nil
}

// mustOutput runs a command as output does. If the command fails, mustOutput fails the test.
func mustOutput(t *testing.T, ctx context.Context, name string, args ...string) string {
	t.Helper()
	out, err := output(ctx, name, args...)
	require.NoError(t, err)
	return out
}

// docker runs a docker command on the first machine.
func (s *swarm) docker(t *testing.T, ctx context.Context, args ...string) string {
	t.Helper()
	return mustOutput(t, ctx, "docker", append([]string{"--host", s.engines[s.Host("node-1")]}, args...)...)
}

// deploy deploys the stack.
func (s *swarm) deploy(t *testing.T, ctx context.Context) {
	addition := swarmTest
	for _, variable := range append(slices.Clone(traffic), fmt.Sprintf("BASIS_RATE_LIMIT=%d", totalRate/swarmClients)) {
		name, value, _ := strings.Cut(variable, "=")
		addition += fmt.Sprintf("      %s: %q\n", name, value)
	}
	file := filepath.Join(dir, "swarm", "test.yml")
	require.NoError(t, os.WriteFile(file, []byte(addition), 0o644))
	args := strings.Fields(deployCommand)[1:]
	stack := len(args) - 1
	s.docker(t, ctx, slices.Insert(args, stack, "-c", file)...)
}

// phaseTimeout is how long the swarm may take to reach a state. On an idle machine of two cores,
// the swarm takes at most a minute.
const phaseTimeout = 4 * time.Minute

// await waits until condition returns nil. It fails the test after phaseTimeout.
func await(t *testing.T, ctx context.Context, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	require.NoError(t, backend.Until(ctx, 500*time.Millisecond, func() error { return condition(ctx) }))
}

// awaitNodes waits until Consul lists as many healthy nodes as the stack has servers, and all these
// nodes are on running machines.
func (s *swarm) awaitNodes(t *testing.T, ctx context.Context) {
	t.Helper()
	consul, err := api.NewClient(&api.Config{Address: net.JoinHostPort(s.Host("node-1").Addr, "8500")})
	require.NoError(t, err)
	await(t, ctx, func(ctx context.Context) error {
		entries, _, err := consul.Health().Service(service, "", true, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if h := s.Host(strings.TrimPrefix(e.Node.Node, "agent-")); s.engines[h] == "" {
				return fmt.Errorf("%s is registered at %s", e.Service.ID, e.Node.Node)
			}
		}
		if len(entries) != swarmServers {
			return fmt.Errorf("%d nodes of %s, not %d", len(entries), service, swarmServers)
		}
		return nil
	})
}

// clients returns the IDs of the clients' containers on each running machine. When a client exits,
// the swarm starts another container, so the IDs change. If all is true, the result also has the
// containers of clients that have exited.
func (s *swarm) clients(ctx context.Context, all bool) (map[*cluster.Host][]string, error) {
	containers := map[*cluster.Host][]string{}
	for h, url := range s.engines {
		out, err := output(ctx, "docker", "--host", url, "ps", "--quiet", "--filter=label=com.docker.swarm.service.name=basis_client", fmt.Sprintf("--all=%v", all))
		if err != nil {
			return nil, err
		}
		containers[h] = strings.Fields(out)
	}
	return containers, nil
}

// callsOf returns the calls that a client has logged since a time.
func (s *swarm) callsOf(ctx context.Context, h *cluster.Host, container string, since time.Time) ([]call, error) {
	log, err := exec.CommandContext(ctx, "docker", "--host", s.engines[h], "logs", "--since="+since.Format(time.RFC3339Nano), container).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("reading the log of client %s on %s: %w: %s", container, h.Name, err, log[max(0, len(log)-1000):])
	}
	lines, err := load.ParseLines(string(log))
	if err != nil {
		return nil, fmt.Errorf("the log of client %s on %s: %w", container, h.Name, err)
	}
	var calls []call
	for _, l := range lines {
		calls = append(calls, call{l})
	}
	return calls, nil
}

// awaitCalls waits until each client has got a response from each server. It considers only the
// calls that were sent after awaitCalls began.
func (s *swarm) awaitCalls(t *testing.T, ctx context.Context) {
	t.Helper()
	since := time.Now()
	await(t, ctx, func(ctx context.Context) error {
		clients, err := s.clients(ctx, false)
		if err != nil {
			return err
		}
		running := 0
		for h, containers := range clients {
			for _, container := range containers {
				running++
				calls, err := s.callsOf(ctx, h, container, since)
				if err != nil {
					return err
				}
				answered := map[string]bool{}
				for _, c := range calls {
					if !c.failed() && c.sent().After(since) {
						answered[c.Node] = true
					}
				}
				if len(answered) < swarmServers {
					return fmt.Errorf("client %s on %s got responses from %d nodes, not %d", container, h.Name, len(answered), swarmServers)
				}
			}
		}
		if running != swarmClients {
			return fmt.Errorf("%d clients run, not %d", running, swarmClients)
		}
		return nil
	})
}

// count adds the calls that the clients have logged since mark, and the failed calls, to row. It
// returns the time of the last failure, or mark if no call failed.
func (s *swarm) count(t *testing.T, ctx context.Context, row *measured.Row, mark time.Time) time.Time {
	t.Helper()
	clients, err := s.clients(ctx, true)
	require.NoError(t, err)
	last := mark
	for h, containers := range clients {
		for _, container := range containers {
			calls, err := s.callsOf(ctx, h, container, mark)
			require.NoError(t, err)
			for _, c := range calls {
				row.Calls++
				if c.failed() {
					row.Failed++
					t.Logf("%v after the mark, on %s: %v", c.end().Sub(mark).Round(time.Millisecond), h.Name, c.Line)
					if c.end().After(last) {
						last = c.end()
					}
				}
			}
		}
	}
	return last
}

// report logs the state of the swarm if the test has failed.
func (s *swarm) report(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := func(what string, args ...string) {
		out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
		t.Logf("%s (error: %v):\n%s", what, err, out)
	}
	manager := s.engines[s.Host("node-1")]
	log("machines", "--host", manager, "node", "ls")
	log("tasks", "--host", manager, "stack", "ps", "--no-trunc", "basis")
	clients, err := s.clients(ctx, true)
	if err != nil {
		t.Logf("finding the clients: %v", err)
	}
	for h, containers := range clients {
		for _, container := range containers {
			log("client "+container+" on "+h.Name, "--host", s.engines[h], "logs", "--timestamps", "--tail=20", container)
		}
	}
}
