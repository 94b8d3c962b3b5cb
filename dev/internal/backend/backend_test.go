package backend

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestProcess(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start("sh", log, Environ("WORD=hello"), "/bin/sh", "-c", `trap 'echo bye; exit 3' TERM; echo $WORD; while :; do sleep 0.01; done`)
	require.NoError(t, err)
	require.NoError(t, p.WaitLog(ctx, regexp.MustCompile("hello"), 1))
	require.False(t, p.Ended())
	require.EqualError(t, p.Stop(syscall.SIGTERM), "exit status 3")
	require.True(t, p.Ended())
	require.NoError(t, p.WaitLog(ctx, regexp.MustCompile("bye"), 1), "WaitLog must find the last output after the process has exited")

	err = p.WaitLog(ctx, regexp.MustCompile("more"), 1)
	require.ErrorContains(t, err, "sh ended (exit status 3) before there was 1 matches of more in its log")
	require.ErrorContains(t, err, "bye")
	require.EqualError(t, p.Stop(syscall.SIGTERM), "exit status 3", "stopping twice does no harm")
}

func TestShell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	p, err := Shell("sh", log, Environ(), dir, `sh -c 'trap "echo interrupted; exit" INT; echo ready; while :; do sleep 0.01; done'; true`)
	require.NoError(t, err)
	require.NoError(t, p.WaitLog(ctx, regexp.MustCompile("ready"), 1))
	_ = p.Stop(syscall.SIGINT) // the shell exits with an error after SIGINT
	require.NoError(t, p.WaitLog(ctx, regexp.MustCompile("interrupted"), 1), "its child process also gets the signal")

	p, err = Shell("pwd", log, Environ(), dir, "pwd; exit 3")
	require.NoError(t, err)
	require.EqualError(t, p.Wait(ctx), "exit status 3")
	require.NoError(t, p.WaitLog(ctx, regexp.MustCompile(regexp.QuoteMeta(dir)), 1))
}

// freeport has a goroutine that runs until the process exits.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/consul/sdk/freeport.checkFreedPorts"))
}

func TestPortsAreFreeAndNotGivenTwice(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		free, err := FreePorts(3)
		require.NoError(t, err)
		for _, port := range free {
			require.False(t, seen[port])
			require.True(t, isFree(port))
			seen[port] = true
		}
	}
}

func TestPortsThatAreInUseAreReplaced(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer udp.Close()
	free, err := FreePorts(1)
	require.NoError(t, err)

	wanted := []int{tcp.Addr().(*net.TCPAddr).Port, free[0], udp.LocalAddr().(*net.UDPAddr).Port, 0}
	got := slices.Clone(wanted)
	require.NoError(t, orFree(&got[0], &got[1], &got[2], &got[3]))
	require.Equal(t, free[0], got[1])
	for _, i := range []int{0, 2, 3} {
		require.NotEqual(t, wanted[i], got[i])
		require.True(t, isFree(got[i]))
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("MICRO_REGISTRY", "mdns")
	t.Setenv("OTHER", "kept")
	env := Environ("MICRO_REGISTRY_ADDRESS=127.0.0.1:1")
	require.NotContains(t, env, "MICRO_REGISTRY=mdns")
	require.Contains(t, env, "OTHER=kept")
	require.Contains(t, env, "MICRO_REGISTRY_ADDRESS=127.0.0.1:1")
}

func TestUntil(t *testing.T) {
	looks := 0
	require.NoError(t, Until(t.Context(), time.Millisecond, func() error {
		if looks++; looks < 3 {
			return errors.New("not yet")
		}
		return nil
	}))
	require.Equal(t, 3, looks)

	ctx, cancel := context.WithCancel(t.Context())
	never := errors.New("never")
	require.Equal(t, never, Until(ctx, time.Millisecond, func() error { cancel(); return never }))

	ctx, cancel = context.WithCancel(t.Context())
	looks = 0
	require.Equal(t, never, Until(ctx, time.Millisecond, func() error {
		if looks++; looks == 1 {
			return never
		}
		cancel()
		return ctx.Err()
	}))
}
