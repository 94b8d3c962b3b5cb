package consul

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"
)

// agent is a Consul agent with a catalog that a test sets. The catalog has the service svc, and the
// nodes that have registered.
type agent struct {
	*httptest.Server
	lookups atomic.Int64 // the number of queries for a service

	mu      sync.Mutex
	ids     []string                       // the IDs of the nodes that the test has set
	nodes   []api.AgentServiceRegistration // the nodes that have registered
	index   uint64
	waiting uint64        // the index of the last blocking query that waited
	changed chan struct{} // closed at the next change
	down    bool          // every query for a service fails with a 500
}

// newAgent starts an agent and returns it with a registry that uses it.
func newAgent(t *testing.T, ids ...string) (*agent, registry.Registry) {
	t.Helper()
	a := &agent{ids: ids, index: 100, changed: make(chan struct{})}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	t.Setenv("CONSUL_HTTP_ADDR", a.Listener.Addr().String())
	return a, newRegistry(t)
}

// set sets the fields ids and index, and ends the blocking queries that wait.
func (a *agent) set(index uint64, ids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index, a.ids = index, ids
	close(a.changed)
	a.changed = make(chan struct{})
}

// register replaces the registered node with this ID. If node is nil, register removes the node.
func (a *agent) register(id string, node *api.AgentServiceRegistration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodes = slices.DeleteFunc(a.nodes, func(n api.AgentServiceRegistration) bool { return n.ID == id })
	if node != nil {
		a.nodes = append(a.nodes, *node)
	}
	a.index++
	close(a.changed)
	a.changed = make(chan struct{})
}

// setDown sets the field down, and ends the blocking queries that wait.
func (a *agent) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.URL.Path == "/v1/agent/service/register":
		var node api.AgentServiceRegistration
		if err := json.NewDecoder(req.Body).Decode(&node); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.register(node.ID, &node)
		return
	case strings.HasPrefix(req.URL.Path, "/v1/agent/service/deregister/"):
		a.register(strings.TrimPrefix(req.URL.Path, "/v1/agent/service/deregister/"), nil)
		return
	case !strings.HasPrefix(req.URL.Path, "/v1/health/service/"):
		fmt.Fprint(w, "[]")
		return
	}
	a.lookups.Add(1)
	a.mu.Lock()
	if wait, _ := strconv.ParseUint(req.URL.Query().Get("index"), 10, 64); wait > 0 && wait == a.index && !a.down {
		changed := a.changed
		a.waiting = wait
		a.mu.Unlock()
		select {
		case <-changed:
		case <-req.Context().Done():
			return
		}
		a.mu.Lock()
	}
	defer a.mu.Unlock()
	if a.down {
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return
	}
	var entries []any
	for _, id := range a.ids {
		entries = append(entries, map[string]any{
			"Node":    map[string]any{},
			"Service": map[string]any{"ID": id, "Service": "svc", "Address": "192.0.2.1", "Port": 4711},
		})
	}
	for _, n := range a.nodes {
		if strings.TrimPrefix(req.URL.Path, "/v1/health/service/") == n.Name {
			entries = append(entries, map[string]any{
				"Node":    map[string]any{},
				"Service": map[string]any{"ID": n.ID, "Service": n.Name, "Address": n.Address, "Port": n.Port, "Tags": n.Tags},
			})
		}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(a.index, 10))
	_ = json.NewEncoder(w).Encode(slices.Clip(entries))
}

// ids returns the IDs of all nodes of services.
func ids(services []*registry.Service) (all []string) {
	for _, s := range services {
		for _, n := range s.Nodes {
			all = append(all, n.Id)
		}
	}
	return all
}

// follower is a caller that keeps a list of svc's nodes, like go-micro's cache. It looks the
// service up once, and then applies the changes that its watcher reports.
type follower struct {
	mu    sync.Mutex
	nodes map[string]bool // whether each node is present, by ID
	err   chan error      // the error that ended the watcher
}

// follow starts a caller that follows svc until the test ends.
func follow(t *testing.T, r registry.Registry) *follower {
	t.Helper()
	services, err := r.GetService("svc")
	require.NoError(t, err)
	f := &follower{nodes: map[string]bool{}, err: make(chan error, 1)}
	for _, id := range ids(services) {
		f.nodes[id] = true
	}
	w, err := r.Watch(registry.WatchService("svc"))
	require.NoError(t, err)
	t.Cleanup(w.Stop)
	go func() {
		for {
			result, err := w.Next()
			if err != nil {
				f.err <- err
				return
			}
			f.mu.Lock()
			for _, id := range ids([]*registry.Service{result.Service}) {
				f.nodes[id] = result.Action != "delete"
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// knows waits until f knows these nodes and no others.
func (f *follower) knows(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		var got []string
		for id, there := range f.nodes {
			if there {
				got = append(got, id)
			}
		}
		slices.Sort(got)
		return slices.Equal(want, got)
	}, time.Minute, time.Millisecond, "wants %v", want)
}

func TestWithoutAWatcherGetServiceAsksConsul(t *testing.T) {
	a, r := newAgent(t, "a")
	services, err := r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(services))
	a.set(101, "b")
	services, err = r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, ids(services))

	// If Consul is unavailable, the last known nodes stay in use.
	a.setDown(true)
	services, err = r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, ids(services))
}

func TestWithAWatcherGetServiceAnswersFromMemory(t *testing.T) {
	a, r := newAgent(t, "a")
	f := follow(t, r)
	a.set(101, "a", "b")
	f.knows(t, "a", "b")
	before := a.lookups.Load()
	for range 10 {
		services, err := r.GetService("svc")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, ids(services))
	}
	require.LessOrEqual(t, a.lookups.Load()-before, int64(1), "the watcher's own query")

	// After the watcher has failed, GetService queries Consul again.
	a.setDown(true)
	require.ErrorContains(t, <-f.err, "No cluster leader")
	a.setDown(false)
	a.set(102, "c")
	services, err := r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"c"}, ids(services))
}

func TestEachWatcherReportsEachChange(t *testing.T) {
	a, r := newAgent(t, "a", "b", "c")
	first, second := follow(t, r), follow(t, r)
	a.set(101, "b", "c")
	first.knows(t, "b", "c")
	second.knows(t, "b", "c")

	// The watchers also report a change that another caller's lookup finds before the watchers do.
	a.set(102, "c")
	_, err := r.GetService("svc")
	require.NoError(t, err)
	first.knows(t, "c")
	second.knows(t, "c")
}

func TestANewWatcherReportsNodesThatLeftBefore(t *testing.T) {
	a, r := newAgent(t, "a", "b")
	services, err := r.GetService("svc") // a cache keeps this result
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids(services))
	a.set(101, "b")
	_, err = r.GetService("svc") // another caller
	require.NoError(t, err)

	w, err := r.Watch(registry.WatchService("svc"))
	require.NoError(t, err)
	defer w.Stop()
	result, err := w.Next()
	require.NoError(t, err)
	require.Equal(t, "delete", result.Action)
	require.Equal(t, []string{"a"}, ids([]*registry.Service{result.Service}))
}

func TestACatalogThatWasLostTakesNoNodeAway(t *testing.T) {
	a, r := newAgent(t, "a", "b")
	f := follow(t, r)
	a.set(101, "a", "b", "c")
	f.knows(t, "a", "b", "c")

	// The agent stays up. Its Consul servers have restarted without their catalog. Another service
	// registers, so the index changes.
	for _, index := range []uint64{5, 6} {
		a.set(index)
		require.Eventually(t, func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.waiting == index
		}, time.Minute, time.Millisecond)
		services, err := r.GetService("svc")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a", "b", "c"}, ids(services))
	}

	a.set(7, "a", "b") // two nodes register again
	f.knows(t, "a", "b")
	a.set(8) // both nodes deregister
	f.knows(t)
}

func TestManyCallersShareALookup(t *testing.T) {
	a, r := newAgent(t)
	release := make(chan struct{})
	a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a.lookups.Add(1)
		<-release
		fmt.Fprint(w, "[]")
	})
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if services, err := r.GetService("svc"); err != nil || len(services) > 0 {
				t.Error(services, err)
			}
		})
	}
	require.Eventually(t, func() bool { return a.lookups.Load() > 0 }, time.Minute, time.Millisecond)
	close(release)
	callers.Wait()
	require.LessOrEqual(t, a.lookups.Load(), int64(30), "three requests for each lookup; a busy machine may start some callers late")
}

// With the race detector, this test finds data races between registrations and lookups.
func TestOneProcessRegistersAndLooksUp(t *testing.T) {
	_, r := newAgent(t, "a")
	var callers sync.WaitGroup
	for i := range 4 {
		node := &registry.Node{Id: fmt.Sprint(i), Address: "192.0.2.1:4711"}
		s := &registry.Service{Name: fmt.Sprintf("svc-%d", i), Nodes: []*registry.Node{node}}
		callers.Go(func() {
			if err := errors.Join(r.Register(s), r.Deregister(s)); err != nil {
				t.Error(err)
			}
		})
		callers.Go(func() {
			if _, err := r.GetService("svc"); err != nil {
				t.Error(err)
			}
			_ = r.Options()
		})
	}
	callers.Wait()
}

func TestTheNextAddressIsUsedWhenAnAgentDies(t *testing.T) {
	a, _ := newAgent(t, "a")
	b, _ := newAgent(t, "b")
	r := newRegistry(t)
	require.NoError(t, r.Init(registry.Addrs(a.Listener.Addr().String(), b.Listener.Addr().String())))
	get := func() []string {
		services, err := r.GetService("svc")
		require.NoError(t, err)
		return ids(services)
	}
	require.Equal(t, []string{"a"}, get())
	a.CloseClientConnections()
	a.Close()
	require.Equal(t, []string{"b"}, get())
	other := &registry.Service{Name: "other", Nodes: []*registry.Node{{Id: "x", Address: "192.0.2.1:1"}}}
	require.NoError(t, r.Register(other))
	require.NoError(t, r.Deregister(other)) // ends the watch of b
}

// go-micro's cache modifies the service that a watcher returns. So this service must be a copy.
func TestWhatAWatcherReturnsIsTheCallers(t *testing.T) {
	a, r := newAgent(t, "a")
	w, err := r.Watch(registry.WatchService("svc"))
	require.NoError(t, err)
	defer w.Stop()
	result, err := w.Next()
	require.NoError(t, err)
	result.Service.Nodes = append(result.Service.Nodes, &registry.Node{Id: "x"})
	result.Service.Nodes[0].Address = "changed"
	a.setDown(true) // makes GetService return the nodes from memory
	services, err := r.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, ids(services))
	require.NotEqual(t, "changed", services[0].Nodes[0].Address)
}
