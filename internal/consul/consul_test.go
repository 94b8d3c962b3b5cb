package consul

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestAddress(t *testing.T) {
	for _, test := range []struct{ variable, option, want string }{
		{"", "", "127.0.0.1:8500"},
		{"consul:8501", "", "consul:8501"},
		{"localhost:8500", "", "localhost:8500"}, // the library's default, set explicitly
		{"https://consul:8501", "", "consul:8501"},
		{"consul:8501", "127.0.0.1:1", "127.0.0.1:1"},
		{"", "consul", "consul:8500"},
		{"", "::1", "[::1]:8500"},
		{"", "[::1]:1", "[::1]:1"},
		{"unix:///run/consul.sock", "", "/run/consul.sock"},
		{"", "unix:///run/consul.sock", "/run/consul.sock"},
	} {
		t.Setenv("CONSUL_HTTP_ADDR", test.variable)
		r := newRegistry(t)
		if test.option != "" {
			// withAddr sets the address like Init, but without the checks of Init.
			r = &withAddr{r, test.option}
		}
		require.Equal(t, []string{test.want}, Addresses(r), "%+v", test)
	}
	require.Empty(t, Addresses(memory.NewRegistry()))
}

// withAddr is a registry with addr as its only address.
type withAddr struct {
	registry.Registry
	addr string
}

func (w *withAddr) Options() registry.Options { return registry.Options{Addrs: []string{w.addr}} }

func TestAgentOnASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "consul.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var asked atomic.Int64
	agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte("[]"))
	})}
	go func() { _ = agent.Serve(l) }()
	defer agent.Close()
	addr := "unix://" + path
	require.NoError(t, CheckAddress(addr))

	t.Setenv("CONSUL_HTTP_ADDR", addr)
	_, err = newRegistry(t).GetService("svc")
	require.NoError(t, err)
	require.NotZero(t, asked.Load())

	// An address in the options replaces the address in the variable. Both addresses may be
	// sockets.
	asked.Store(0)
	r := newRegistry(t)
	require.NoError(t, r.Init(registry.Addrs("127.0.0.1:1")))
	_, err = r.GetService("svc")
	require.ErrorContains(t, Explain(r, err), "no Consul agent at 127.0.0.1:1: dial tcp 127.0.0.1:1")
	require.Zero(t, asked.Load())

	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	r = newRegistry(t)
	require.NoError(t, r.Init(registry.Addrs(addr)))
	_, err = r.GetService("svc")
	require.NoError(t, err)
	require.NotZero(t, asked.Load())

	require.NoError(t, agent.Close()) // also removes the socket
	_, err = r.GetService("svc")
	require.ErrorContains(t, Explain(r, err), "no Consul agent at "+path+": dial unix")
}

func TestBracket(t *testing.T) {
	for in, want := range map[string]string{
		"fd00::2:8080":   "[fd00::2]:8080",
		"::1:1":          "[::1]:1",
		"[fd00::2]:8080": "[fd00::2]:8080",
		"192.0.2.1:8080": "192.0.2.1:8080",
		"host:8080":      "host:8080",
		"host":           "host",
		"":               "",
	} {
		require.Equal(t, want, bracket(in), in)
	}
}

// services returns services from texts like "1: a b": version 1 with the nodes a and b.
func services(versionAndNodes ...string) []*registry.Service {
	var all []*registry.Service
	for _, v := range versionAndNodes {
		version, nodes, _ := strings.Cut(v, ":")
		s := &registry.Service{Name: "svc", Version: version}
		for _, id := range strings.Fields(nodes) {
			s.Nodes = append(s.Nodes, &registry.Node{Id: id})
		}
		all = append(all, s)
	}
	return all
}

func TestChanges(t *testing.T) {
	for _, test := range []struct {
		name          string
		before, after []*registry.Service
		want          []string
	}{
		{"nothing", nil, nil, nil},
		{"first", nil, services("1: a b"), []string{"update 1 a b"}},
		{"one more", services("1: a"), services("1: a b"), []string{"update 1 a b"}},
		{"one less", services("1: a b"), services("1: b"), []string{"delete 1 a", "update 1 b"}},
		{"replaced", services("1: a"), services("1: b"), []string{"delete 1 a", "update 1 b"}},
		{"all gone", services("1: a b"), nil, []string{"delete 1 a b"}},
		{"all critical", services("1: a b"), services("1:"), []string{"delete 1 a b"}},
		{"new version", services("1: a"), services("1: a", "2: b"), []string{"update 1 a", "update 2 b"}},
		{"same node, new version", services("1: a"), services("2: a"), []string{"delete 1 a", "update 2 a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, r := range changes(test.before, test.after) {
				line := r.Action + " " + r.Service.Version
				for _, n := range r.Service.Nodes {
					line += " " + n.Id
				}
				got = append(got, line)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// If an agent accepts connections but never responds, Init does not block, and a lookup times out.
func TestAHangingAgentIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	r := newRegistry(t)

	done := make(chan error, 1)
	go func() {
		if err := r.Init(registry.Addrs(strings.TrimPrefix(hanging.URL, "http://"))); err != nil {
			done <- err
			return
		}
		_, err := r.GetService("svc")
		done <- err
	}()
	select {
	case err := <-done:
		require.ErrorContains(t, err, "no answer within 5s")
	case <-time.After(time.Minute):
		t.Fatal("still waiting")
	}
}

// go-micro's own registry sends a probe to an agent before it uses the agent, and skips an agent
// that denies the probe. The registry of NewRegistry sends no probes, so it queries such an agent.
func TestAnAgentThatDeniesProbesIsAsked(t *testing.T) {
	var asked [2]atomic.Int64
	var addrs []string
	for i := range asked {
		agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/agent/services":
				_, _ = w.Write([]byte("{}"))
			case "/v1/health/service/svc":
				asked[i].Add(1)
				_, _ = w.Write([]byte("[]"))
			default:
				w.WriteHeader(http.StatusForbidden)
			}
		}))
		defer agent.Close()
		addrs = append(addrs, strings.TrimPrefix(agent.URL, "http://"))
	}
	r := newRegistry(t)
	require.NoError(t, r.Init(registry.Addrs(addrs...)))
	_, err := r.GetService("svc")
	require.ErrorIs(t, err, ErrDenied)
	require.NotZero(t, asked[0].Load())
	require.Zero(t, asked[1].Load())
}

func TestWatchWantsAService(t *testing.T) {
	r := newRegistry(t)
	_, err := r.Watch()
	require.ErrorContains(t, err, "no service given")
}

func TestAStoppedWatcherSaysSo(t *testing.T) {
	entered := make(chan struct{}, 1)
	release := make(chan struct{})
	agent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	defer agent.Close()
	defer close(release)
	t.Setenv("CONSUL_HTTP_ADDR", strings.TrimPrefix(agent.URL, "http://"))
	r := newRegistry(t)
	w, err := r.Watch(registry.WatchService("svc"))
	require.NoError(t, err)
	go func() {
		<-entered
		w.Stop()
	}()
	_, err = w.Next()
	require.Equal(t, registry.ErrWatcherStopped, err)
}

func TestNewRegistryReportsWrongSettings(t *testing.T) {
	t.Setenv("CONSUL_CACERT", "nowhere.pem")
	r, err := NewRegistry()
	require.ErrorContains(t, err, "settings from CONSUL_ variables: ")
	require.ErrorContains(t, err, "nowhere.pem")
	require.NoError(t, r.Init(registry.Addrs("127.0.0.1:1")), "go-micro's command line calls Init before the program can check the error")
}

// newRegistry returns a registry with the settings in the environment.
func newRegistry(t *testing.T) registry.Registry {
	t.Helper()
	r, err := NewRegistry()
	require.NoError(t, err)
	return r
}

// TestMain removes Consul's variables from the environment. It also checks for leaked goroutines.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CONSUL_") {
			os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}
