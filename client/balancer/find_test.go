package balancer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
)

func register(t *testing.T, r registry.Registry, version string, ids ...string) {
	t.Helper()
	s := &registry.Service{Name: service, Version: version}
	for i, id := range ids {
		s.Nodes = append(s.Nodes, &registry.Node{Id: id, Address: fmt.Sprintf("127.0.0.1:%d", i+1)})
	}
	require.NoError(t, r.Register(s))
}

// offlineClient returns a client that finds nodes in r, but does not send its calls. Instead, its
// call wrapper passes the ID of the chosen node to onCall.
func offlineClient(t *testing.T, r registry.Registry, onCall func(id string)) client.Client {
	t.Helper()
	b := balancer.New(nil)
	t.Cleanup(b.Close)
	return offline(b, r, onCall)
}

func offline(b *balancer.Balancer, r registry.Registry, onCall func(id string)) client.Client {
	return grpc.NewClient(
		client.Registry(r),
		client.Selector(b.Selector(selector.Registry(r))),
		client.WrapCall(func(client.CallFunc) client.CallFunc {
			return func(_ context.Context, node *registry.Node, _ client.Request, _ any, _ client.CallOptions) error {
				onCall(node.Id)
				return nil
			}
		}),
	)
}

func find(c client.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return balancer.Find(ctx, c, service)
}

func TestRoundRobinIsEvenFromManyCallers(t *testing.T) {
	r := memory.NewRegistry()
	register(t, r, "1", "c", "a")
	register(t, r, "2", "b")
	var mu sync.Mutex
	counts := map[string]int{}
	b := balancer.New(nil)
	defer b.Close()
	c := offline(b, r, func(id string) {
		mu.Lock()
		defer mu.Unlock()
		counts[id]++
	})
	require.NoError(t, find(c, 10*time.Second))
	c = b.Wrap(roundrobin.NewClientWrapper())(c)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 30 {
				req := c.NewRequest(service, "Basis.Hello", nil)
				if err := c.Call(context.Background(), req, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, map[string]int{"a": 80, "b": 80, "c": 80}, counts)
}

// Many clients that make one call each must not all call the same node. With two nodes, the
// probability that all 40 clients choose the same node by chance is 2 to the power of -39.
func TestRoundsStartAtRandomNodes(t *testing.T) {
	r := memory.NewRegistry()
	register(t, r, "1", "a", "b")
	counts := map[string]int{}
	for range 40 {
		b := balancer.New(nil)
		defer b.Close()
		c := b.Wrap(roundrobin.NewClientWrapper())(offline(b, r, func(id string) { counts[id]++ }))
		require.NoError(t, c.Call(context.Background(), c.NewRequest(service, "Basis.Hello", nil), nil))
	}
	require.Len(t, counts, 2)
}

func TestFindWaitsForANode(t *testing.T) {
	r := &counting{Registry: memory.NewRegistry(), asked: make(chan struct{}, 1)}
	found := make(chan error, 1)
	go func() { found <- find(offlineClient(t, r, func(string) {}), time.Minute) }()
	<-r.asked // the first lookup has found no node
	register(t, r.Registry, "1", "a")
	require.NoError(t, <-found)
}

// counting is a registry that sends a value to the channel asked after each lookup.
type counting struct {
	registry.Registry
	asked chan struct{}
}

func (c *counting) GetService(name string) ([]*registry.Service, error) {
	services, err := c.Registry.GetService(name)
	select {
	case c.asked <- struct{}{}:
	default:
	}
	return services, err
}

// failing is a registry whose lookups fail with err.
type failing struct {
	registry.Registry
	err error
}

func (f *failing) GetService(string) ([]*registry.Service, error) { return nil, f.err }

func TestFindReturnsWhyThereIsNoNode(t *testing.T) {
	require.Equal(t, balancer.ErrNoNode, find(offlineClient(t, memory.NewRegistry(), nil), 10*time.Millisecond))

	refused := errors.New("refused")
	require.Equal(t, refused, find(offlineClient(t, &failing{memory.NewRegistry(), refused}, nil), time.Minute))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, context.Canceled, balancer.Find(ctx, offlineClient(t, memory.NewRegistry(), nil), service))

	slow := &slowRegistry{Registry: memory.NewRegistry(), asked: make(chan struct{}, 10), answer: make(chan struct{})}
	defer close(slow.answer)
	require.Equal(t, context.DeadlineExceeded, find(offlineClient(t, slow, nil), 10*time.Millisecond))
}
