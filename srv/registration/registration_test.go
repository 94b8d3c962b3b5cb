package registration_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/util/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gomicroexample/basis/srv/registration"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var service = &registry.Service{Name: "svc"}

// fake is a registry that a test can make unavailable.
type fake struct {
	registry.Registry // for the methods that the tests do not call
	away              atomic.Bool
	attempts          atomic.Int64
	registered        atomic.Bool
	metadata          map[string]string // of the node in the last attempt
}

// away returns an unavailable fake.
func away() *fake {
	f := new(fake)
	f.away.Store(true)
	return f
}

func (f *fake) Register(s *registry.Service, _ ...registry.RegisterOption) error {
	f.attempts.Add(1)
	for _, node := range s.Nodes {
		f.metadata = node.Metadata
	}
	if f.away.Load() {
		return errors.New("refused")
	}
	f.registered.Store(true)
	return nil
}

func (f *fake) String() string { return "fake" }

func (f *fake) Deregister(*registry.Service) error {
	f.registered.Store(false)
	return nil
}

func explain(err error) error { return fmt.Errorf("nobody there: %w", err) }

func newRegistry(r registry.Registry) registry.Registry {
	return registration.NewRegistry(r, registration.Options{Server: server.Options{Address: "127.0.0.1:0"}, Explain: explain})
}

// lines is a logger that keeps the logged lines.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Log(v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprint(v...))
}

func (l *lines) Logf(format string, v ...any) { l.Log(fmt.Sprintf(format, v...)) }

// take returns the lines logged since the previous take.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

// logged collects the logged lines until the test ends.
func logged(t *testing.T) *lines {
	before := log.GetLogger()
	t.Cleanup(func() { log.SetLogger(before) })
	l := new(lines)
	log.SetLogger(l)
	return l
}

// pass advances the fake clock by d, and waits until all goroutines in the bubble are blocked.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRegisterRetriesAndLogsOnce(t *testing.T) {
	l := logged(t)
	synctest.Test(t, func(t *testing.T) {
		f := away()
		r := newRegistry(f)
		// go-micro registers every 10 s. The registry is unavailable for half a minute.
		for range 3 {
			require.NoError(t, r.Register(service))
			pass(10*time.Second - time.Millisecond)
		}
		require.EqualValues(t, 30, f.attempts.Load())
		require.Equal(t, []string{"Not registered: nobody there: refused. Trying again every 1s"}, l.take())

		f.away.Store(false)
		pass(time.Second)
		require.True(t, f.registered.Load())
		require.Equal(t, []string{"Registered svc"}, l.take())

		// After a success, only go-micro's own attempts follow, and nothing is logged.
		pass(time.Minute)
		require.EqualValues(t, 31, f.attempts.Load())
		require.NoError(t, r.Register(service))
		require.EqualValues(t, 32, f.attempts.Load())
		require.Empty(t, l.take())

		// The second outage is also logged.
		f.away.Store(true)
		require.NoError(t, r.Register(service))
		require.Equal(t, []string{"Registration not renewed: nobody there: refused. Trying again every 1s"}, l.take())
		f.away.Store(false)
		require.NoError(t, r.Register(service))
		require.Len(t, l.take(), 1)
		pass(time.Minute)
		require.EqualValues(t, 34, f.attempts.Load())
	})
}

func TestDeregisterEndsTheRetries(t *testing.T) {
	logged(t)
	synctest.Test(t, func(t *testing.T) {
		f := away()
		r := newRegistry(f)
		require.NoError(t, r.Register(service))
		require.NoError(t, r.Deregister(service))
		f.away.Store(false)
		pass(time.Minute)
		require.EqualValues(t, 1, f.attempts.Load())
		require.False(t, f.registered.Load())
	})
}

func TestRetriesRegisterTheMetadataOfTheFirstAttempt(t *testing.T) {
	logged(t)
	synctest.Test(t, func(t *testing.T) {
		f := away()
		r := newRegistry(f)
		metadata := map[string]string{"server": "grpc"}
		node := &registry.Node{Id: "svc-1", Address: "127.0.0.1:4711", Metadata: metadata}
		require.NoError(t, r.Register(&registry.Service{Name: "svc", Nodes: []*registry.Node{node}}))
		metadata["server"] = "other"
		pass(time.Second)
		require.EqualValues(t, 2, f.attempts.Load())
		require.Equal(t, map[string]string{"server": "grpc"}, f.metadata)
		require.NoError(t, r.Deregister(service))
	})
}

func TestObserveIsToldOfEachAttempt(t *testing.T) {
	logged(t)
	synctest.Test(t, func(t *testing.T) {
		f := away()
		attempts := make(chan error, 9)
		take := func() (all []string) {
			for len(attempts) > 0 {
				all = append(all, fmt.Sprint(<-attempts))
			}
			return all
		}
		r := registration.NewRegistry(f, registration.Options{
			Server: server.Options{Address: "127.0.0.1:0"}, Explain: explain,
			Observe: func(err error) { attempts <- err },
		})
		const refused, ok = "nobody there: refused", "<nil>"
		require.NoError(t, r.Register(service))
		pass(3 * time.Second)
		require.Equal(t, []string{refused, refused, refused, refused}, take())
		f.away.Store(false)
		pass(time.Second)
		require.NoError(t, r.Register(service)) // renews
		require.Equal(t, []string{ok, ok}, take())
		f.away.Store(true)
		require.NoError(t, r.Register(service))
		require.NoError(t, r.Deregister(service))
		pass(time.Minute)
		require.Equal(t, []string{refused}, take())
	})
}

func TestDeregisteredIsCalledWhenTheNodeIsGone(t *testing.T) {
	l := logged(t)
	f := new(fake)
	var r registry.Registry
	calls := 0
	r = registration.NewRegistry(f, registration.Options{
		Server: server.Options{Address: "127.0.0.1:0"}, Explain: explain,
		Deregistered: func() {
			calls++
			require.False(t, f.registered.Load())
			require.NoError(t, r.Register(service), "no lock is held")
		},
	})
	require.NoError(t, r.Register(service))
	require.NoError(t, r.Deregister(service))
	require.Equal(t, 1, calls)

	// If the node cannot be deregistered, the failure is logged, and then Deregistered is called.
	broken := registration.NewRegistry(stuck{f}, registration.Options{
		Server: server.Options{Address: "127.0.0.1:0"}, Explain: explain,
		Deregistered: func() {
			calls++
			require.Contains(t, l.take(), "Not deregistered: nobody there: refused")
		},
	})
	require.NoError(t, broken.Deregister(service))
	require.Equal(t, 2, calls)
}

// stuck is a registry whose Deregister fails.
type stuck struct{ *fake }

func (stuck) Deregister(*registry.Service) error { return errors.New("refused") }
