package balancer_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
)

// selectorContract tests the behavior on which callers of go-micro's selector.Selector rely.
// newSelector creates the selector to test. In one of the subtests, the function wrap wraps the
// registry of the selector.
func selectorContract(t *testing.T, wrap func(registry.Registry) registry.Registry, newSelector func(t *testing.T, opts ...selector.Option) selector.Selector) {
	version := func(version string, ids ...string) *registry.Service {
		s := &registry.Service{Name: service, Version: version}
		for _, id := range ids {
			s.Nodes = append(s.Nodes, &registry.Node{Id: id, Address: id + ":1"})
		}
		return s
	}
	// first is a strategy that returns the node with the lowest ID. The variable calls counts how
	// often the selector uses first.
	calls := 0
	first := func(services []*registry.Service) selector.Next {
		calls++
		var ids []string
		for _, s := range services {
			for _, n := range s.Nodes {
				ids = append(ids, n.Id)
			}
		}
		return func() (*registry.Node, error) {
			if len(ids) == 0 {
				return nil, selector.ErrNoneAvailable
			}
			return &registry.Node{Id: slices.Min(ids), Address: slices.Min(ids) + ":1"}, nil
		}
	}
	// chosen returns the ID of the node that s selects, or "" if s returns an error.
	chosen := func(s selector.Selector, opts ...selector.SelectOption) string {
		next, err := s.Select(service, opts...)
		if err != nil {
			return ""
		}
		node, err := next()
		if err != nil {
			return ""
		}
		return node.Id
	}

	t.Run("a service that nobody registered", func(t *testing.T) {
		_, err := newSelector(t, selector.Registry(memory.NewRegistry())).Select(service)
		require.Contains(t, []error{selector.ErrNoneAvailable, selector.ErrNotFound, registry.ErrNotFound}, err)
	})

	t.Run("the nodes of the registry in Init's options, as they come and go", func(t *testing.T) {
		r := memory.NewRegistry()
		s := newSelector(t, selector.Registry(memory.NewRegistry()))
		wrapped := wrap(r)
		require.NoError(t, s.Init(selector.Registry(wrapped)))
		require.Equal(t, wrapped, s.Options().Registry)
		for _, step := range []struct {
			change func(*registry.Service, ...registry.RegisterOption) error
			node   string
			want   string
		}{
			{r.Register, "b", "b"},
			{r.Register, "a", "a"},
			{func(s *registry.Service, _ ...registry.RegisterOption) error { return r.Deregister(s) }, "a", "b"},
		} {
			require.NoError(t, step.change(version("1", step.node)))
			require.Eventually(t, func() bool {
				return chosen(s, selector.WithStrategy(first)) == step.want
			}, time.Minute, time.Millisecond, "wants %s", step.want)
			// The registry sends an event only to watchers that already exist.
			require.Eventually(t, func() bool { return watched(r) }, time.Minute, time.Millisecond)
		}
	})

	t.Run("strategies and filters", func(t *testing.T) {
		r := memory.NewRegistry()
		require.NoError(t, r.Register(version("1", "a", "b")))
		require.NoError(t, r.Register(version("2", "c", "d")))
		s := newSelector(t, selector.Registry(r), selector.SetStrategy(first))
		calls = 0
		require.Equal(t, "a", chosen(s))
		require.NotZero(t, calls, "the selector must use the strategy in Init's options")
		require.Equal(t, "c", chosen(s, selector.WithFilter(selector.FilterVersion("2"))))
		_, err := s.Select(service, selector.WithFilter(selector.FilterVersion("3")))
		require.Equal(t, selector.ErrNoneAvailable, err)
		ids := map[string]bool{}
		require.Eventually(t, func() bool {
			ids[chosen(s, selector.WithStrategy(selector.Random))] = true
			return len(ids) == 4
		}, time.Minute, time.Microsecond)
	})

	t.Run("marks and resets of any node", func(t *testing.T) {
		r := memory.NewRegistry()
		require.NoError(t, r.Register(version("1", "a")))
		s := newSelector(t, selector.Registry(r))
		s.Mark(service, &registry.Node{Id: "a"}, nil)
		s.Mark("go.micro.srv.other", &registry.Node{Id: "b"}, selector.ErrNotFound)
		s.Reset(service)
		require.Equal(t, "a", chosen(s))
		require.NotEmpty(t, s.String())
	})

	t.Run("many goroutines", func(t *testing.T) {
		r := memory.NewRegistry()
		require.NoError(t, r.Register(version("1", "a", "b")))
		s := newSelector(t, selector.Registry(r))
		var callers sync.WaitGroup
		for range 16 {
			callers.Go(func() {
				for range 100 {
					if id := chosen(s, selector.WithStrategy(selector.RoundRobin)); id != "a" && id != "b" {
						t.Errorf("chose %q", id)
					}
				}
			})
		}
		callers.Wait()
	})
}

func TestTheBalancerKeepsTheSelectorsContract(t *testing.T) {
	asIs := func(r registry.Registry) registry.Registry { return r }
	selectorContract(t, asIs, func(t *testing.T, opts ...selector.Option) selector.Selector {
		s := balancer.New(nil).Selector(opts...)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	})
}

// go-micro's own selector passes the same tests, so the contract is go-micro's. This selector needs
// a registry whose watchers report copies: go-micro's cache modifies the services that a watcher
// reports, and the memory registry reports its own data.
func TestStockSelectorKeepsTheContract(t *testing.T) {
	copying := func(r registry.Registry) registry.Registry { return copyingRegistry{r} }
	selectorContract(t, copying, func(t *testing.T, opts ...selector.Option) selector.Selector {
		s := selector.NewSelector(opts...)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	})
}

// copyingRegistry is a registry whose watchers report copies.
type copyingRegistry struct{ registry.Registry }

func (r copyingRegistry) Watch(opts ...registry.WatchOption) (registry.Watcher, error) {
	w, err := r.Registry.Watch(opts...)
	return copyingWatcher{w}, err
}

type copyingWatcher struct{ registry.Watcher }

func (w copyingWatcher) Next() (*registry.Result, error) {
	result, err := w.Watcher.Next()
	if err != nil {
		return nil, err
	}
	return &registry.Result{Action: result.Action, Service: registry.Copy([]*registry.Service{result.Service})[0]}, nil
}
