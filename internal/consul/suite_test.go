package consul

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/stretchr/testify/require"
)

// registryContract tests the behavior that callers of go-micro's registry.Registry rely on.
// newRegistry must return an empty registry.
func registryContract(t *testing.T, newRegistry func(t *testing.T) registry.Registry) {
	node := func(id, address string) *registry.Node {
		return &registry.Node{Id: id, Address: address, Metadata: map[string]string{"zone": id}}
	}
	version := func(version string, nodes ...*registry.Node) *registry.Service {
		return &registry.Service{Name: "svc", Version: version, Nodes: nodes}
	}
	// listed returns the address and the version of each node.
	listed := func(r registry.Registry) map[string]string {
		services, err := r.GetService("svc")
		if err != nil {
			require.Equal(t, registry.ErrNotFound, err)
		}
		all := map[string]string{}
		for _, s := range services {
			for _, n := range s.Nodes {
				all[n.Id] = n.Address + " v" + s.Version
			}
		}
		return all
	}

	t.Run("a service that nobody registered has no nodes", func(t *testing.T) {
		require.Empty(t, listed(newRegistry(t)))
	})

	t.Run("a node is listed from Register to Deregister", func(t *testing.T) {
		r := newRegistry(t)
		a, b := version("1", node("a", "192.0.2.1:1")), version("2", node("b", "[2001:db8::1]:2"))
		require.NoError(t, r.Register(a, registry.RegisterTTL(time.Minute)))
		require.NoError(t, r.Register(b, registry.RegisterTTL(time.Minute)))
		require.NoError(t, r.Register(b, registry.RegisterTTL(time.Minute))) // renews
		require.Equal(t, map[string]string{"a": "192.0.2.1:1 v1", "b": "[2001:db8::1]:2 v2"}, listed(r))

		require.NoError(t, r.Deregister(a))
		require.Equal(t, map[string]string{"b": "[2001:db8::1]:2 v2"}, listed(r))
		require.NoError(t, r.Deregister(b))
		require.Empty(t, listed(r))
	})

	t.Run("a registration keeps metadata and endpoints", func(t *testing.T) {
		r := newRegistry(t)
		s := version("1", node("a", "192.0.2.1:1"))
		s.Endpoints = []*registry.Endpoint{{Name: "Basis.Hello", Metadata: map[string]string{"stream": "false"}}}
		require.NoError(t, r.Register(s))
		services, err := r.GetService("svc")
		require.NoError(t, err)
		require.Len(t, services, 1)
		require.Equal(t, map[string]string{"zone": "a"}, services[0].Nodes[0].Metadata)
		require.Len(t, services[0].Endpoints, 1)
		require.Equal(t, "Basis.Hello", services[0].Endpoints[0].Name)
		require.Equal(t, map[string]string{"stream": "false"}, services[0].Endpoints[0].Metadata)
	})

	t.Run("watchers report what changes until they stop", func(t *testing.T) {
		r := newRegistry(t)
		watchers := make([]registry.Watcher, 2)
		changed := make([]chan string, len(watchers))
		for i := range watchers {
			w, err := r.Watch(registry.WatchService("svc"))
			require.NoError(t, err)
			watchers[i], changed[i] = w, make(chan string, 100)
			go func() {
				defer close(changed[i])
				for {
					result, err := w.Next()
					if err != nil {
						changed[i] <- err.Error()
						return
					}
					for _, n := range result.Service.Nodes {
						if result.Action == "delete" {
							changed[i] <- "without " + n.Id
						} else {
							changed[i] <- "with " + n.Id
						}
					}
				}
			}()
		}
		reports := func(want string) {
			t.Helper()
			for i := range changed {
				for got := ""; got != want; {
					select {
					case got = <-changed[i]:
					case <-time.After(time.Minute):
						require.Fail(t, "no report", "watcher %d wants %q", i, want)
					}
				}
			}
		}
		a, b := version("1", node("a", "192.0.2.1:1")), version("1", node("b", "192.0.2.1:2"))
		require.NoError(t, r.Register(a))
		reports("with a")
		require.NoError(t, r.Register(b))
		reports("with b")
		require.NoError(t, r.Deregister(a))
		reports("without a")
		for _, w := range watchers {
			w.Stop()
		}
		reports(registry.ErrWatcherStopped.Error())
	})

	t.Run("many goroutines", func(t *testing.T) {
		r := newRegistry(t)
		var callers sync.WaitGroup
		for i := range 8 {
			callers.Go(func() {
				s := version("1", node(fmt.Sprint(i), fmt.Sprintf("192.0.2.1:%d", i+1)))
				if err := r.Register(s); err != nil {
					t.Error(err)
				}
				if _, err := r.GetService("svc"); err != nil {
					t.Error(err)
				}
				_, _ = r.Options(), r.String()
			})
		}
		callers.Wait()
		require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7"}, slices.Sorted(maps.Keys(listed(r))))
	})
}

func TestTheRegistryKeepsGoMicrosContract(t *testing.T) {
	registryContract(t, func(t *testing.T) registry.Registry {
		_, r := newAgent(t)
		return r
	})
}

// go-micro's own memory registry passes the same tests, so the tests check go-micro's contract.
func TestStockRegistryKeepsTheContract(t *testing.T) {
	registryContract(t, func(*testing.T) registry.Registry { return memory.NewRegistry() })
}
