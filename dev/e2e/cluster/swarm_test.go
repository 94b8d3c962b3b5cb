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
	engines map[*cluster.Host]string // URLs
	clients map[string]*cluster.Host // by container
}

func TestSwarm(t *testing.T) {
	if dir == "" || !*onSwarm {
		t.Skip(`takes root, Docker and some minutes: "make e2e-docker"`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s := newSwarm(t, ctx)
	s.deploy(t, ctx)
	s.awaitNodes(t, ctx)
	s.findClients(t, ctx)
	s.awaitCalls(t, ctx, time.Now(), swarmServers)

	mark := time.Now()
	s.docker(t, ctx, "service", "update", "--force", "--quiet", "basis_srv")
	row := measured.Row{Fault: "a rolling update of six servers", Allowed: "0"}
	row.Note("updated after %v", time.Since(mark).Round(time.Second))
	s.awaitNodes(t, ctx)
	s.awaitCalls(t, ctx, time.Now(), swarmServers)
	s.count(t, ctx, &row, mark)
	require.Zero(t, row.Failed)
	swarmSection.record("1", row)

	mark = time.Now()
	s.powerOff(t, "node-3")
	row = measured.Row{
		Fault:   "a machine with a third of the servers powered off; the swarm starts as many on the other machines",
		Allowed: "10: one in-flight call per caller, and one more per client; after 3 s, 0",
	}
	s.awaitNodes(t, ctx)
	row.Note("six servers again after %v", time.Since(mark).Round(time.Second))
	s.awaitCalls(t, ctx, time.Now(), swarmServers)
	last := s.count(t, ctx, &row, mark)
	require.LessOrEqual(t, row.Failed, 10)
	require.Less(t, last.Sub(mark), 3*time.Second, "calls failed later")
	swarmSection.record("2", row)
}

// powerOff ends a machine, and removes its clients from s.clients.
func (s *swarm) powerOff(t *testing.T, name string) {
	lost := s.Host(name)
	require.NoError(t, lost.PowerOff())
	delete(s.engines, lost)
	for container, h := range s.clients {
		if h == lost {
			delete(s.clients, container)
		}
	}
	require.NotEmpty(t, s.clients)
}

// newSwarm starts three engines with the images of the stack, and joins them into a swarm of three
// managers.
func newSwarm(t *testing.T, ctx context.Context) *swarm {
	network, err := register(func() (*cluster.Network, error) {
		return cluster.NewNetwork(filepath.Join(dir, "swarm"), "node-1", "node-2", "node-3")
	})
	require.NoError(t, err)
	t.Cleanup(network.Close)
	s := &swarm{Network: network, engines: map[*cluster.Host]string{}, clients: map[string]*cluster.Host{}}
	images := imagesOf(t)
	for _, h := range s.Hosts("") {
		url, err := h.StartEngine(ctx)
		require.NoError(t, err)
		s.engines[h] = url
	}
	archive := filepath.Join(dir, "images.tar")
	command(t, ctx, "docker", append([]string{"save", "--output", archive}, images...)...)
	var loading errgroup.Group
	for _, url := range s.engines {
		loading.Go(func() error {
			out, err := exec.CommandContext(ctx, "docker", "--host", url, "load", "--input", archive).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	require.NoError(t, loading.Wait())
	first := s.Host("node-1")
	s.docker(t, ctx, "swarm", "init", "--advertise-addr="+first.Addr)
	token := strings.TrimSpace(s.docker(t, ctx, "swarm", "join-token", "--quiet", "manager"))
	for _, h := range s.Hosts("")[1:] {
		command(t, ctx, "docker", "--host", s.engines[h], "swarm", "join", "--token="+token, "--advertise-addr="+h.Addr, net.JoinHostPort(first.Addr, "2377"))
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

// command runs a command in the root directory, and returns what it prints.
func command(t *testing.T, ctx context.Context, name string, args ...string) string {
	t.Helper()
	root, err := rootDir()
	require.NoError(t, err)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s %s: %s", name, strings.Join(args, " "), &errs)
	return out.String()
}

// docker runs a docker command on the first machine.
func (s *swarm) docker(t *testing.T, ctx context.Context, args ...string) string {
	t.Helper()
	return command(t, ctx, "docker", append([]string{"--host", s.engines[s.Host("node-1")]}, args...)...)
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

// await waits until condition returns nil.
func await(t *testing.T, ctx context.Context, condition func() error) {
	t.Helper()
	require.NoError(t, backend.Until(ctx, 200*time.Millisecond, condition))
}

// awaitNodes waits until Consul lists as many healthy nodes as the stack has servers, and only nodes on
// running machines.
func (s *swarm) awaitNodes(t *testing.T, ctx context.Context) {
	t.Helper()
	consul, err := api.NewClient(&api.Config{Address: net.JoinHostPort(s.Host("node-1").Addr, "8500")})
	require.NoError(t, err)
	await(t, ctx, func() error {
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

// findClients waits until all clients run, and records their machines.
func (s *swarm) findClients(t *testing.T, ctx context.Context) {
	t.Helper()
	await(t, ctx, func() error {
		clear(s.clients)
		for h, url := range s.engines {
			out := command(t, ctx, "docker", "--host", url, "ps", "--quiet", "--filter=label=com.docker.swarm.service.name=basis_client")
			for _, container := range strings.Fields(out) {
				s.clients[container] = h
			}
		}
		if len(s.clients) != swarmClients {
			return fmt.Errorf("%d clients run, not %d", len(s.clients), swarmClients)
		}
		return nil
	})
}

// callsOf returns the calls of a client that ended since a time.
func (s *swarm) callsOf(t *testing.T, ctx context.Context, container string, since time.Time) []call {
	t.Helper()
	url := s.engines[s.clients[container]]
	log, err := exec.CommandContext(ctx, "docker", "--host", url, "logs", "--since="+since.Format(time.RFC3339Nano), container).CombinedOutput()
	require.NoError(t, err, "%s", log[max(0, len(log)-1000):])
	lines, err := load.ParseLines(string(log))
	require.NoError(t, err)
	var calls []call
	for _, l := range lines {
		calls = append(calls, call{l})
	}
	return calls
}

// awaitCalls waits until each client has got responses from n nodes since a time.
func (s *swarm) awaitCalls(t *testing.T, ctx context.Context, since time.Time, n int) {
	t.Helper()
	await(t, ctx, func() error {
		for container, h := range s.clients {
			answered := map[string]bool{}
			for _, c := range s.callsOf(t, ctx, container, since) {
				if !c.failed() && c.sent().After(since) {
					answered[c.Node] = true
				}
			}
			if len(answered) < n {
				return fmt.Errorf("the client on %s got answers from %d nodes, not %d", h.Name, len(answered), n)
			}
		}
		return nil
	})
}

// count adds the calls that ended since mark, and the failed calls, to row. It returns the time of the
// last failure, or mark without a failure.
func (s *swarm) count(t *testing.T, ctx context.Context, row *measured.Row, mark time.Time) time.Time {
	t.Helper()
	last := mark
	for container, h := range s.clients {
		for _, c := range s.callsOf(t, ctx, container, mark) {
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
	return last
}
