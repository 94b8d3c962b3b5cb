package balancer_test

import (
	"context"
	stderrors "errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/go-micro/broker"
	brokermemory "github.com/micro/go-micro/broker/memory"
	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/proto"
)

const service = "go.micro.srv.basis"

// node is a server behind a relay. It counts connections, and responds with its own ID.
type node struct {
	id          string
	server      string                // where the server listens
	address     string                // where the relay listens
	connections atomic.Int64          // connections accepted so far
	closed      atomic.Int64          // connections that clients have closed
	hang        atomic.Bool           // the relay drops all data, including handshakes
	answered    atomic.Int64          // calls received
	fail        atomic.Pointer[error] // the error that calls return, if set
	delay       atomic.Int64          // of each call, in nanoseconds

	mu   sync.Mutex
	open []io.Closer
}

func (n *node) Hello(_ context.Context, req *proto.Request, rsp *proto.Response) error {
	n.answered.Add(1)
	time.Sleep(time.Duration(n.delay.Load()))
	if err := n.fail.Load(); err != nil {
		return *err
	}
	if req.Name == "" {
		return errors.BadRequest(service, "name is empty")
	}
	rsp.Msg = n.id
	return nil
}

// start runs a server behind a relay, and registers the relay in r.
func start(t *testing.T, r registry.Registry, id string, opts ...server.Option) *node {
	t.Helper()
	return startService(t, r, service, id, opts...)
}

func startService(t *testing.T, r registry.Registry, service, id string, opts ...server.Option) *node {
	t.Helper()
	n := &node{id: id}
	own := memory.NewRegistry()
	s := grpcserver.NewServer(append(opts,
		server.Name(service),
		server.Address("127.0.0.1:0"),
		server.Registry(own),
		server.Broker(brokermemory.NewBroker(func(o *broker.Options) { o.Context = context.Background() })),
	)...)
	require.NoError(t, proto.RegisterBasisHandler(s, n))
	require.NoError(t, s.Start())
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	found, err := own.GetService(service)
	require.NoError(t, err)

	n.server = found[0].Nodes[0].Address
	n.listen(t, "127.0.0.1:0")
	t.Cleanup(n.kill)
	require.NoError(t, r.Register(&registry.Service{Name: service, Nodes: []*registry.Node{
		{Id: id, Address: n.address},
	}}))
	return n
}

// listen starts the relay on address, or restarts it.
func (n *node) listen(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	n.address = l.Addr().String()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, l)
	go n.serve(l)
}

func (n *node) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", n.server)
		if err != nil {
			in.Close()
			continue
		}
		n.connections.Add(1)
		n.mu.Lock()
		n.open = append(n.open, in, out)
		n.mu.Unlock()
		go func() {
			n.copy(out, in) // until the client closes
			n.closed.Add(1)
		}()
		go n.copy(in, out)
	}
}

func (n *node) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		k, err := from.Read(b)
		if err != nil {
			return
		}
		if n.hang.Load() {
			continue // drop the data
		}
		if _, err := to.Write(b[:k]); err != nil {
			return
		}
	}
}

// live returns the number of open connections from clients to the node.
func (n *node) live() int64 { return n.connections.Load() - n.closed.Load() }

// kill closes the node's listener and connections, as the end of a process does.
func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.open {
		c.Close()
	}
	n.open = nil
}

// newBalanced returns a client that finds nodes in r and uses b.
func newBalanced(t *testing.T, b *balancer.Balancer, r registry.Registry, opts ...client.Option) client.Client {
	t.Helper()
	t.Cleanup(b.Close)
	return grpc.NewClient(append([]client.Option{
		client.Registry(r), client.Selector(b.Selector(selector.Registry(r))), client.Retries(2), client.Retry(failure.Retry), client.WrapCall(b.WrapCall),
	}, opts...)...)
}

// newClient returns a function that makes one call, and returns the ID of the node that responded.
func newClient(t *testing.T, r registry.Registry, timeout time.Duration) func(name string) (string, error) {
	t.Helper()
	b := balancer.New(nil)
	basis := proto.NewBasisService(service, b.Wrap(roundrobin.NewClientWrapper())(newBalanced(t, b, r)))
	return func(name string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		rsp, err := basis.Hello(ctx, &proto.Request{Name: name})
		return rsp.GetMsg(), err
	}
}

func TestOneConnectionPerNodeForAllCallers(t *testing.T) {
	r := memory.NewRegistry()
	all := []*node{start(t, r, "a"), start(t, r, "b")}
	call := newClient(t, r, time.Minute)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 50 {
				name := "John"
				if i%10 == 0 {
					name = "" // an error must not close the connection
				}
				if _, err := call(name); (err != nil) != (name == "") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range all {
		require.EqualValues(t, 1, n.connections.Load(), n.id)
	}
}

func TestErrorsAreTheServers(t *testing.T) {
	r := memory.NewRegistry()
	start(t, r, "a")
	_, err := newClient(t, r, time.Minute)("")
	require.Equal(t, errors.BadRequest(service, "name is empty"), err)
}

func TestDeadNodesAreNotCalled(t *testing.T) {
	r := memory.NewRegistry()
	a, b, c := start(t, r, "a"), start(t, r, "b"), start(t, r, "c")
	call := newClient(t, r, time.Minute)
	for range 6 {
		_, err := call("John")
		require.NoError(t, err)
	}
	a.kill()
	b.kill()
	for range 100 {
		got, err := call("John")
		require.NoError(t, err)
		require.Equal(t, c.id, got)
	}
}

func TestADeadNodeThatWasNeverCalledIsSkipped(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	a.kill()
	call := newClient(t, r, time.Minute)
	for range 10 {
		got, err := call("John")
		require.NoError(t, err)
		require.Equal(t, b.id, got)
	}
}

func TestAFrozenNodeCostsOneCallAndIsCalledAgainWhenItWakes(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	call := newClient(t, r, time.Second)
	answers := map[string]int{}
	for range 10 {
		got, err := call("John")
		require.NoError(t, err)
		answers[got]++
	}
	require.Equal(t, map[string]int{"a": 5, "b": 5}, answers)

	a.hang.Store(true)
	failed := 0
	for range 100 {
		got, err := call("John")
		if err != nil {
			require.ErrorContains(t, err, "408")
			failed++
			// go-micro may return the error before the connection is replaced.
			require.Eventually(t, func() bool { return a.connections.Load() == 2 }, time.Minute, time.Millisecond)
			continue
		}
		require.Equal(t, b.id, got)
	}
	require.Equal(t, 1, failed)

	a.hang.Store(false)
	require.Eventually(t, func() bool {
		got, err := call("John")
		return err == nil && got == a.id
	}, time.Minute, 10*time.Millisecond, "node a is not called again")
}

// If a host or a network is down, many nodes are down at the same time.
func TestNodesThatFreezeTogetherCostOneCall(t *testing.T) {
	r := memory.NewRegistry()
	var frozen []*node
	for _, id := range []string{"a", "b", "c", "d"} {
		frozen = append(frozen, start(t, r, id))
	}
	start(t, r, "e")
	call := newClient(t, r, time.Second)
	for range 10 {
		_, err := call("John")
		require.NoError(t, err)
	}

	for _, n := range frozen {
		n.hang.Store(true)
	}
	failed := 0
	for range 50 {
		got, err := call("John")
		if err != nil {
			require.ErrorContains(t, err, "408")
			failed++
			for _, n := range frozen {
				require.Eventually(t, func() bool { return n.connections.Load() == 2 }, time.Minute, time.Millisecond,
					"the connection to %s is not replaced", n.id)
			}
			continue
		}
		require.Equal(t, "e", got)
	}
	require.Equal(t, 1, failed)
}

func TestANodeThatIsFrozenFromTheStartCostsNoCall(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	a.hang.Store(true)
	call := newClient(t, r, 10*time.Second)
	slow := 0
	for range 50 {
		began := time.Now()
		got, err := call("John")
		require.NoError(t, err)
		require.Equal(t, b.id, got)
		if time.Since(began) > 250*time.Millisecond {
			slow++
		}
	}
	require.LessOrEqual(t, slow, 5, "only the first call waits for node a; on a busy machine, a few other calls may be slow")
}

// watched reports whether a client watches r. A client notices a change at once only if it already
// watches r.
func watched(r registry.Registry) bool {
	m := r.(*memory.Registry)
	m.RLock()
	defer m.RUnlock()
	return len(m.Watchers) > 0
}

func TestConnectionsToDeregisteredNodesAreClosed(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	call := newClient(t, r, time.Minute)
	for range 2 {
		_, err := call("John")
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, a.live())
	require.Eventually(t, func() bool { return watched(r) }, time.Minute, time.Millisecond)
	require.NoError(t, r.Deregister(&registry.Service{Name: service, Nodes: []*registry.Node{{Id: a.id, Address: a.address}}}))
	require.Eventually(t, func() bool { return a.live() == 0 }, time.Minute, 10*time.Millisecond, "the connection to node a stays open")
	require.EqualValues(t, 1, b.live())
}

func TestIfNoNodeIsConnectedAllAreTried(t *testing.T) {
	r := memory.NewRegistry()
	a := start(t, r, "a")
	call := newClient(t, r, time.Minute)
	_, err := call("John")
	require.NoError(t, err)
	a.kill()
	_, err = call("John")
	require.ErrorContains(t, err, "connection refused")

	a.listen(t, a.address)
	require.Eventually(t, func() bool {
		_, err := call("John")
		return err == nil
	}, time.Minute, 10*time.Millisecond, "node a is not called again")
}

func TestANodeThatFailsAtEverythingIsEjectedForAWhile(t *testing.T) {
	for name, fault := range map[string]error{
		"5xx":         errors.InternalServerError(service, "oops"),
		"plain error": stderrors.New("oops"),
	} {
		t.Run(name, func(t *testing.T) {
			r := memory.NewRegistry()
			a, b := start(t, r, "a"), start(t, r, "b")
			a.fail.Store(&fault)
			call := newClient(t, r, time.Minute)
			for range 20 {
				got, err := call("John")
				require.NoError(t, err)
				require.Equal(t, b.id, got)
			}
			tried := a.answered.Load()
			require.Less(t, tried, int64(10), "five attempts, and one more for every three seconds")

			// After three seconds, node a gets another attempt. When the attempts at node a no
			// longer fail, node a gets as many calls as before.
			require.Eventually(t, func() bool {
				_, err := call("John")
				require.NoError(t, err)
				return a.answered.Load() > tried
			}, time.Minute, time.Millisecond, "no further attempt goes to node a")
			a.fail.Store(nil)
			require.Eventually(t, func() bool {
				got, err := call("John")
				return err == nil && got == a.id
			}, time.Minute, time.Millisecond, "node a is not called again")
		})
	}
}

func TestClientErrorsDoNotEjectANode(t *testing.T) {
	r := memory.NewRegistry()
	a, b := start(t, r, "a"), start(t, r, "b")
	mistake := errors.BadRequest(service, "name is taken")
	a.fail.Store(&mistake)
	call := newClient(t, r, time.Minute)
	for range 20 {
		if _, err := call("John"); err != nil {
			require.Equal(t, mistake, err)
		}
	}
	require.EqualValues(t, 10, a.answered.Load())
	require.EqualValues(t, 10, b.answered.Load())
}

// The strategy of this test always chooses the node with the lowest ID. Still, each attempt of a
// call goes to a different node, because the balancer offers only nodes that the call has not
// tried.
func TestEachAttemptGoesToAnotherNode(t *testing.T) {
	r := memory.NewRegistry()
	a, b, c := start(t, r, "a"), start(t, r, "b"), start(t, r, "c")
	fault := errors.InternalServerError(service, "oops")
	a.fail.Store(&fault)
	b.fail.Store(&fault)
	lb := balancer.New(nil)
	first := func(services []*registry.Service) selector.Next {
		var all []*registry.Node
		for _, s := range services {
			all = append(all, s.Nodes...)
		}
		byID := func(a, b *registry.Node) int { return strings.Compare(a.Id, b.Id) }
		return func() (*registry.Node, error) { return slices.MinFunc(all, byID), nil }
	}
	always := func(c client.Client) client.Client { return &withStrategy{c, first} }
	basis := proto.NewBasisService(service, lb.Wrap(always)(newBalanced(t, lb, r)))
	rsp, err := basis.Hello(context.Background(), &proto.Request{Name: "John"})
	require.NoError(t, err)
	require.Equal(t, c.id, rsp.GetMsg())
}

// withStrategy is a client that makes all calls with the given strategy.
type withStrategy struct {
	client.Client
	strategy selector.Strategy
}

func (w *withStrategy) Call(ctx context.Context, req client.Request, rsp any, opts ...client.CallOption) error {
	return w.Client.Call(ctx, req, rsp, append(opts, client.WithSelectOption(selector.WithStrategy(w.strategy)))...)
}

func TestIfEveryNodeIsEjectedTheConnectedOnesAreCalled(t *testing.T) {
	r := memory.NewRegistry()
	a, b, c := start(t, r, "a"), start(t, r, "b"), start(t, r, "c")
	call := newClient(t, r, time.Minute)
	for range 3 {
		_, err := call("John")
		require.NoError(t, err)
	}
	c.kill()
	fault := errors.InternalServerError(service, "oops")
	a.fail.Store(&fault)
	b.fail.Store(&fault)
	answered := func() int64 { return a.answered.Load() + b.answered.Load() }
	for range 4 {
		_, err := call("John")
		require.Equal(t, fault, err)
	}
	before := answered()
	_, err := call("John")
	require.Equal(t, fault, err)
	require.EqualValues(t, 3, answered()-before, "all three attempts go to connected nodes")
	a.fail.Store(nil)
	for range 4 {
		got, err := call("John")
		require.NoError(t, err)
		require.Equal(t, a.id, got)
	}
}
