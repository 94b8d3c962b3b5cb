package balancer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	microerrors "github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/proto"
)

// These tests check what the package promises. Users who copy the package can rely on these
// promises.

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-micro's gRPC server does not stop its workers. go-micro's memory registry still sends
		// events to watchers that have stopped.
		goleak.IgnoreAnyFunction("google.golang.org/grpc.(*Server).serverWorker"),
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/registry/memory.(*Registry).watch"),
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/registry/memory.(*Watcher).Next"),
	)
}

// call returns a function that calls Hello of a service. The function uses a client that finds the
// nodes in r.
func call(t *testing.T, r registry.Registry) func(ctx context.Context, service string) (string, error) {
	t.Helper()
	b := balancer.New(nil)
	c := b.Wrap(roundrobin.NewClientWrapper())(newBalanced(t, b, r))
	return func(ctx context.Context, service string) (string, error) {
		rsp, err := proto.NewBasisService(service, c).Hello(ctx, &proto.Request{Name: "John"})
		return rsp.GetMsg(), err
	}
}

func TestCallersThatGiveUpCostNoConnection(t *testing.T) {
	for name, giveUp := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		},
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := memory.NewRegistry()
			// With static windows, gRPC's server does not ping its clients at every call.
			quiet := grpcserver.Options(grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10))
			a, b := start(t, r, "a", quiet), start(t, r, "b", quiet)
			hello := call(t, r)
			for range 4 {
				_, err := hello(context.Background(), service)
				require.NoError(t, err)
			}
			a.delay.Store(int64(100 * time.Millisecond))
			b.delay.Store(int64(100 * time.Millisecond))
			var callers sync.WaitGroup
			for range 30 {
				callers.Go(func() {
					for range 3 {
						ctx, cancel := giveUp(context.Background())
						_, err := hello(ctx, service)
						cancel()
						if o := failure.Of(err); o != failure.Canceled && o != failure.DeadlineExceeded {
							t.Error(err)
						}
					}
				})
			}
			callers.Wait()
			a.delay.Store(0)
			b.delay.Store(0)
			answers := map[string]int{}
			require.Eventually(t, func() bool { // until both nodes respond: a node gets no calls while it is probed
				got, err := hello(context.Background(), service)
				require.NoError(t, err)
				answers[got]++
				return len(answers) == 2
			}, time.Minute, time.Millisecond)
			require.EqualValues(t, 1, a.connections.Load())
			require.EqualValues(t, 1, b.connections.Load())
		})
	}
}

// After a caller gives up, a goroutine of go-micro's client may still sleep before a retry. After
// the sleep, the attempt must not be sent.
func TestAnAttemptWhoseCallerHasLeftIsNotSent(t *testing.T) {
	r := memory.NewRegistry()
	a := start(t, r, "a")
	b := balancer.New(nil)
	t.Cleanup(b.Close)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ctx, last := balancer.RecordAttempt(ctx)
	req := client.NewRequest(service, "Basis.Hello", &proto.Request{Name: "John"}, client.WithContentType("application/grpc+proto"))
	err := b.WrapCall(nil)(ctx, &registry.Node{Id: "a", Address: a.address}, req, &proto.Response{}, client.CallOptions{})
	require.Equal(t, microerrors.Timeout(failure.ClientID, "context canceled"), err)
	require.Nil(t, last.Load())
	require.Zero(t, a.connections.Load())
}

func TestServicesKeepTheirConnections(t *testing.T) {
	r := memory.NewRegistry()
	a, b := startService(t, r, "go.micro.srv.a", "a"), startService(t, r, "go.micro.srv.b", "b")
	hello := call(t, r)
	for range 50 {
		for name, n := range map[string]*node{"go.micro.srv.a": a, "go.micro.srv.b": b} {
			got, err := hello(context.Background(), name)
			require.NoError(t, err)
			require.Equal(t, n.id, got)
		}
	}
	require.EqualValues(t, 1, a.connections.Load())
	require.EqualValues(t, 1, b.connections.Load())
}

// deaf starts a node that gives its clients a large flow-control window, but reads nothing.
func deaf(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			f := http2.NewFramer(c, nil)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			_ = f.WriteWindowUpdate(0, 1<<30)
		}
	}()
	return l.Addr().String()
}

func TestAPeerThatDoesNotReadHoldsUpNoOtherCall(t *testing.T) {
	r := memory.NewRegistry()
	start(t, r, "a")
	b := balancer.New(nil)
	basis := proto.NewBasisService(service, b.Wrap(roundrobin.NewClientWrapper())(newBalanced(t, b, r)))
	hello := func() {
		began := time.Now()
		_, err := basis.Hello(context.Background(), &proto.Request{Name: "John"})
		require.NoError(t, err)
		require.Less(t, time.Since(began), 3*time.Second, "closing a connection blocks for up to 5 s")
	}
	hello()

	// Fill the connection to the deaf node.
	node := &registry.Node{Id: "deaf", Address: deaf(t)}
	large := &proto.Request{Name: strings.Repeat("x", 1<<20)}
	req := client.NewRequest(service, "Basis.Hello", large, client.WithContentType("application/grpc+proto"))
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := b.WrapCall(nil)(ctx, node, req, &proto.Response{}, client.CallOptions{}); err == nil {
				t.Error("the deaf node answered")
			}
		})
	}
	callers.Wait()

	// The balancer replaces the connection after a probe of one second. Meanwhile, calls to the
	// other node must not wait.
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		hello()
	}
}

func TestManyCallersWithoutANodeAreOneLookup(t *testing.T) {
	r := &slowRegistry{Registry: memory.NewRegistry(), asked: make(chan struct{}, 1000), answer: make(chan struct{})}
	hello := call(t, r)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := hello(context.Background(), service); err == nil {
				t.Error("there is no node")
			}
		})
	}
	<-r.asked

	// A caller stops waiting when its context ends.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := hello(ctx, service)
	require.Equal(t, microerrors.Timeout(failure.ClientID, "context deadline exceeded"), err)

	close(r.answer)
	callers.Wait()
	require.LessOrEqual(t, r.lookups.Load(), int64(10), "one lookup, and on a busy machine one more for each 200 ms")
}

// slowRegistry is a registry that responds only after the channel answer is closed.
type slowRegistry struct {
	registry.Registry
	lookups atomic.Int64
	asked   chan struct{}
	answer  chan struct{}
	err     atomic.Pointer[error]
}

func (s *slowRegistry) GetService(name string) ([]*registry.Service, error) {
	s.lookups.Add(1)
	s.asked <- struct{}{}
	<-s.answer
	if err := s.err.Load(); err != nil {
		return nil, *err
	}
	return s.Registry.GetService(name)
}

func TestANodeWhoseAddressCannotBeDialedTakesNoTurns(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	require.NoError(t, r.Register(&registry.Service{Name: service, Nodes: []*registry.Node{
		{Id: "c", Address: "no%zz address\x7f:1"}, {Id: "d", Address: ""}, {Id: "e", Address: "127.0.0.1:99999"},
	}}))
	hello := call(t, r)
	require.Eventually(t, func() bool {
		_, err := hello(context.Background(), service)
		require.NoError(t, err)
		return a.answered.Load() > 0 && b.answered.Load() > 0
	}, time.Minute, time.Millisecond)
	for range 10 { // until the connections to all other nodes have failed
		_, err := hello(context.Background(), service)
		require.NoError(t, err)
	}
	before := [2]int64{a.answered.Load(), b.answered.Load()}
	for range 100 {
		_, err := hello(context.Background(), service)
		require.NoError(t, err)
	}
	require.EqualValues(t, 50, a.answered.Load()-before[0])
	require.EqualValues(t, 50, b.answered.Load()-before[1])
}

// A server may call other services with go-micro's client, and return an error of this client.
func TestAnErrorThatAServerPassesOnIsTheServers(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	fault := microerrors.New(failure.ClientID, "call timeout: context deadline exceeded", 408)
	a.fail.Store(&fault)
	b.fail.Store(&fault)
	_, err := call(t, r)(context.Background(), service)
	require.Equal(t, microerrors.New(service+"/"+failure.ClientID, "call timeout: context deadline exceeded", 408), err)
	require.Equal(t, failure.ServerTimeout, failure.Of(err))
}

func TestIfTheRegistryFailsTheLastNodesStayInUse(t *testing.T) {
	r := &slowRegistry{Registry: memory.NewRegistry(), asked: make(chan struct{}, 1000), answer: make(chan struct{})}
	close(r.answer)
	start(t, r.Registry, "a")
	b := balancer.New(nil)
	t.Cleanup(b.Close)
	s := b.Selector(selector.Registry(r))
	_, err := s.Select(service)
	require.NoError(t, err)
	failed := errors.New("refused")
	r.err.Store(&failed)
	_, err = s.Select(service)
	require.NoError(t, err)
	_, err = s.Select("go.micro.srv.other")
	require.ErrorIs(t, err, failed)
}

func TestCallersFiltersApply(t *testing.T) {
	r := memory.NewRegistry()
	for _, version := range []string{"1", "2"} {
		require.NoError(t, r.Register(&registry.Service{Name: service, Version: version, Nodes: []*registry.Node{
			{Id: version + "a", Address: version + "a:1"}, {Id: version + "b", Address: version + "b:1"},
		}}))
	}
	b := balancer.New(nil)
	t.Cleanup(b.Close)
	s := b.Selector(selector.Registry(r))
	for range 20 {
		next, err := s.Select(service, selector.WithFilter(selector.FilterVersion("2")))
		require.NoError(t, err)
		for range 2 { // each attempt goes to another node
			node, err := next()
			require.NoError(t, err)
			require.Equal(t, "2", node.Id[:1])
		}
	}
	_, err := s.Select(service, selector.WithFilter(selector.FilterVersion("3")))
	require.Equal(t, selector.ErrNoneAvailable, err)
}

// The strategy gets at most 64 nodes for the first attempt of a call. All nodes must still get the
// same number of calls.
func TestManyNodesAreCalledEvenly(t *testing.T) {
	for _, n := range []int{63, 64, 65, 200} {
		r := memory.NewRegistry()
		s := &registry.Service{Name: service}
		for i := range n {
			s.Nodes = append(s.Nodes, &registry.Node{Id: fmt.Sprint(i), Address: fmt.Sprintf("127.0.0.1:%d", i+1)})
		}
		require.NoError(t, r.Register(s))
		b := balancer.New(nil)
		counts := map[string]int{}
		c := b.Wrap(roundrobin.NewClientWrapper())(offline(b, r, func(id string) { counts[id]++ }))
		for range 3 * n {
			require.NoError(t, c.Call(context.Background(), c.NewRequest(service, "Basis.Hello", nil, client.WithContentType("application/json")), nil))
		}
		b.Close()
		require.Len(t, counts, n)
		for id, calls := range counts {
			require.Equal(t, 3, calls, "node %s of %d", id, n)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("%d nodes", n), func(b *testing.B) {
			r := memory.NewRegistry()
			s := &registry.Service{Name: service}
			for i := range n {
				s.Nodes = append(s.Nodes, &registry.Node{Id: fmt.Sprint(i), Address: fmt.Sprintf("127.0.0.1:%d", i+1)})
			}
			if err := r.Register(s); err != nil {
				b.Fatal(err)
			}
			balancer := balancer.New(nil)
			defer balancer.Close()
			sel := balancer.Selector(selector.Registry(r))
			for b.Loop() {
				next, err := sel.Select(service, selector.WithStrategy(selector.RoundRobin))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
