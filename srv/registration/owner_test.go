package registration_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/srv/registration"
)

// agent is a registry that keeps one node per ID, as a Consul agent does.
type agent struct {
	registry.Registry // for the methods that the tests do not call

	mu    sync.Mutex
	nodes map[string]string // addresses of live nodes, by ID
	down  error
}

func (a *agent) Register(s *registry.Service, _ ...registry.RegisterOption) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down == nil {
		a.nodes[s.Nodes[0].Id] = s.Nodes[0].Address
	}
	return a.down
}

func (a *agent) Deregister(s *registry.Service) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down == nil {
		delete(a.nodes, s.Nodes[0].Id)
	}
	return a.down
}

func (a *agent) holder(id string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nodes[id], a.down
}

func (a *agent) String() string { return "fake" }

// set makes every request fail with err. If err is nil, set registers a node with this ID and
// address. An empty address removes the node.
func (a *agent) set(id, address string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = err
	if err == nil {
		a.nodes[id] = address
	}
	if address == "" {
		delete(a.nodes, id)
	}
}

// node returns the address that is registered with an ID, or "" if there is none.
func (a *agent) node(id string) string {
	address, _ := a.holder(id)
	return address
}

// server returns a registry for the server at address, and the service that go-micro registers.
func (a *agent) server(address string) (registry.Registry, *registry.Service) {
	r := registration.NewRegistry(a, registration.Options{
		Server:   server.Options{Address: address},
		Explain:  explain,
		Holder:   a.holder,
		Leftover: func(id string) string { return id + " stays" },
	})
	return r, &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "svc-1", Address: address}}}
}

const first, second = "127.0.0.1:1111", "127.0.0.1:2222"

const taken = "another server is registered as svc-1, at %s, and its check passes; this one, at %s, would replace it. " +
	"Give each server an ID of its own with --server_id or MICRO_SERVER_ID, or set neither. " +
	"If the other server has crashed, its registration ends with its TTL. Trying again every 1s"

func TestSecondServerWithAnIDWaitsForTheFirst(t *testing.T) {
	l := logged(t)
	synctest.Test(t, func(t *testing.T) {
		a := &agent{nodes: map[string]string{}}
		r1, s1 := a.server(first)
		r2, s2 := a.server(second)
		require.NoError(t, r1.Register(s1))
		require.Equal(t, first, a.node("svc-1"))
		l.take()

		// For a minute, the first server renews, and the second server tries to register.
		for range 6 {
			require.NoError(t, r2.Register(s2))
			pass(10 * time.Second)
			require.NoError(t, r1.Register(s1))
			require.Equal(t, first, a.node("svc-1"))
		}
		require.Equal(t, []string{"Advertising 127.0.0.1", fmt.Sprintf("Not registered: "+taken, first, second)}, l.take())

		// When the second server stops, the first stays registered.
		require.NoError(t, r2.Deregister(s2))
		require.Equal(t, first, a.node("svc-1"))

		// When the first server stops, the second is registered within a second.
		require.NoError(t, r2.Register(s2))
		l.take()
		require.NoError(t, r1.Deregister(s1))
		pass(time.Second)
		require.Equal(t, second, a.node("svc-1"))
		require.Equal(t, []string{"Registered svc"}, l.take())
		require.NoError(t, r2.Deregister(s2))
		require.Empty(t, a.node("svc-1"))
	})
}

func TestServerThatWasReplacedSaysSo(t *testing.T) {
	l := logged(t)
	synctest.Test(t, func(t *testing.T) {
		a := &agent{nodes: map[string]string{}}
		r, s := a.server(first)
		require.NoError(t, r.Register(s))
		a.set("svc-1", second, nil) // another server started at the same moment
		l.take()
		for range 6 {
			require.NoError(t, r.Register(s))
			pass(10 * time.Second)
		}
		require.Equal(t, []string{fmt.Sprintf("Registration not renewed: "+taken, second, first)}, l.take())
		require.NoError(t, r.Deregister(s))
		require.Equal(t, second, a.node("svc-1"))
	})
}

func TestServerMayMoveToAnotherAddress(t *testing.T) {
	l := logged(t)
	synctest.Test(t, func(t *testing.T) {
		a := &agent{nodes: map[string]string{}}
		r, s := a.server(first)
		require.NoError(t, r.Register(s))
		s.Nodes[0].Address = second
		l.take()
		require.NoError(t, r.Register(s))
		require.Equal(t, second, a.node("svc-1"))
		require.Empty(t, l.take())
		require.NoError(t, r.Deregister(s))
		require.Empty(t, a.node("svc-1"))
	})
}

func TestServerThatComesBackAtItsAddressDoesNotWait(t *testing.T) {
	l := logged(t)
	a := &agent{nodes: map[string]string{"svc-1": first}} // registered before a crash
	r, s := a.server(first)
	require.NoError(t, r.Register(s))
	require.Equal(t, []string{"Advertising 127.0.0.1"}, l.take())
	require.NoError(t, r.Deregister(s))
	require.Empty(t, a.node("svc-1"))
}

func TestAnotherReasonIsLoggedOnceItLasts(t *testing.T) {
	l := logged(t)
	synctest.Test(t, func(t *testing.T) {
		a := &agent{nodes: map[string]string{}, down: errors.New("refused")}
		r, s := a.server(first)
		require.NoError(t, r.Register(s))
		require.Equal(t, []string{"Advertising 127.0.0.1", "Not registered: nobody there: refused. Trying again every 1s"}, l.take())

		// While the registry starts, reasons that change at each attempt are not logged.
		for i := range 30 {
			a.set("", "", fmt.Errorf("no leader yet, %d", i))
			pass(time.Second)
		}
		a.set("", "", errors.New("refused"))
		pass(time.Minute)
		require.Empty(t, l.take())

		a.set("", "", errors.New("denied"))
		pass(9 * time.Second)
		require.Empty(t, l.take())
		pass(time.Minute)
		require.Equal(t, []string{"Not registered: nobody there: denied. Trying again every 1s"}, l.take())
		a.set("svc-1", second, nil)
		pass(time.Minute)
		require.Equal(t, []string{fmt.Sprintf("Not registered: "+taken, second, first)}, l.take())
		a.set("svc-1", "", nil)
		pass(time.Second)
		require.Equal(t, []string{"Registered svc"}, l.take())
		require.NoError(t, r.Deregister(s))
	})
}

func TestDeregisterSaysWhatStays(t *testing.T) {
	l := logged(t)
	a := &agent{nodes: map[string]string{}}
	r, s := a.server(first)
	require.NoError(t, r.Register(s))
	a.set("", "", errors.New("refused"))
	l.take()
	require.NoError(t, r.Deregister(s))
	require.Equal(t, []string{"Not deregistered: nobody there: refused. svc-1 stays"}, l.take())

	// The agent is still down. This server was never registered.
	r, s = a.server(first)
	require.NoError(t, r.Register(s))
	require.NoError(t, r.Deregister(s))
}
