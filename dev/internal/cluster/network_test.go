//go:build linux

package cluster

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/backend"
)

// listenEnv is the name of an environment variable. If the variable is set, the test binary runs no
// tests. It only listens on the address in the variable.
const listenEnv = "CLUSTER_TEST_LISTEN"

func TestMain(m *testing.M) {
	address := os.Getenv(listenEnv)
	if address == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		c.Close()
	}
}

func TestNetwork(t *testing.T) {
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	n, err := NewNetwork(t.TempDir(), "a", "b")
	require.NoError(t, err)
	defer n.Close()
	require.Len(t, namespaces(t, n), 3, "two hosts and a switch")

	var listening []*backend.Process
	for _, h := range n.Hosts("") {
		p, err := h.Start("listener", backend.Environ(listenEnv+"="+h.Addr+":4000"), os.Args[0])
		require.NoError(t, err)
		listening = append(listening, p)
	}
	a, b := n.Host("a"), n.Host("b")
	require.Nil(t, n.Host("c"))
	requireReached(t, a)
	requireReached(t, b)

	require.NoError(t, b.Cut())
	requireLost(t, b)
	requireReached(t, a)
	require.NoError(t, n.Heal())
	requireReached(t, b)

	require.NoError(t, n.Split(a))
	requireLost(t, a)
	requireReached(t, b)
	require.NoError(t, n.Heal())
	requireReached(t, a)

	require.NoError(t, a.Lose(100))
	requireLost(t, a)
	require.NoError(t, n.Heal())
	requireReached(t, a)

	require.NoError(t, a.PowerOff())
	requireLost(t, a)
	require.Error(t, syscall.Kill(listening[0].Pid(), 0), "the listener still runs")

	n.Close()
	require.ErrorIs(t, syscall.Kill(listening[1].Pid(), 0), syscall.ESRCH)
	require.Empty(t, namespaces(t, n))
	_, err = net.InterfaceByName(n.name)
	require.Error(t, err)
	_, err = b.Start("late", nil, "/bin/true")
	require.ErrorIs(t, err, errClosed)
}

// A killed process leaves its network behind. The next call of NewNetwork that uses the same name
// deletes this network.
func TestNewNetworkDeletesALeftNetwork(t *testing.T) {
	if err := Usable(); err != nil {
		t.Skip(err)
	}
	left, err := NewNetwork(t.TempDir(), "a")
	require.NoError(t, err)
	p, err := left.Host("a").Start("listener", backend.Environ(listenEnv+"="+left.Host("a").Addr+":4000"), os.Args[0])
	require.NoError(t, err)
	requireReached(t, left.Host("a"))
	left.lease.Close() // as the kernel does when a process exits

	next, err := NewNetwork(t.TempDir(), "b")
	require.NoError(t, err)
	defer next.Close()
	if next.name != left.name {
		defer left.Close()
		l, err := net.Listen("unix", left.lease.Addr().String())
		if err != nil {
			t.Skip("another process has taken the name")
		}
		l.Close()
		t.Fatalf("the next network is %s, and %s is left", next.name, left.name)
	}
	require.Eventually(t, func() bool { return syscall.Kill(p.Pid(), 0) == syscall.ESRCH }, 10*time.Second, 10*time.Millisecond)
	require.Len(t, namespaces(t, left), 2, "the switch and the host of the next network")
	require.NoFileExists(t, "/run/netns/"+left.Host("a").Namespace())
}

// namespaces returns the network namespaces with the name of a network.
func namespaces(t *testing.T, n *Network) []string {
	t.Helper()
	all, err := filepath.Glob("/run/netns/" + n.name + "-*")
	require.NoError(t, err)
	return all
}

// requireReached waits until the listener on a host accepts a connection.
func requireReached(t *testing.T, h *Host) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := net.DialTimeout("tcp", h.Addr+":4000", time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, 10*time.Millisecond, "%s is not reached", h.Name)
}

// requireLost requires that a connection to a host times out. If the packets were rejected instead
// of lost, the connection would fail at once.
func requireLost(t *testing.T, h *Host) {
	t.Helper()
	_, err := net.DialTimeout("tcp", h.Addr+":4000", 300*time.Millisecond)
	require.ErrorContains(t, err, "timeout")
}
