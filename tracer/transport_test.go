package tracer

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// receive returns the next packet.
func receive(t *testing.T, conn net.PacketConn) string {
	t.Helper()
	packet := make([]byte, 1<<16)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, _, err := conn.ReadFrom(packet)
	require.NoError(t, err)
	return string(packet[:n])
}

func listenUDP(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp4", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// After a refused packet, the next packet arrives if Jaeger is up again.
func TestJaegerComesBack(t *testing.T) {
	jaeger := listenUDP(t, "127.0.0.1:0")
	addr := jaeger.LocalAddr().String()
	require.NoError(t, jaeger.Close())
	c := connect(addr, &logger{})
	defer c.close()
	require.NoError(t, c.write([]byte("lost")))
	jaeger = listenUDP(t, addr)
	require.NoError(t, c.write([]byte("back")))
	require.Equal(t, "back", receive(t, jaeger))
}

func TestJaegerMoves(t *testing.T) {
	here, there := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	c := &connection{addr: "127.0.0.1:x", logger: &logger{}} // the test calls resolve itself
	c.resolve(t.Context())
	require.ErrorIs(t, c.write([]byte("early")), errResolving)

	c.addr = here.LocalAddr().String()
	c.resolve(t.Context())
	require.NoError(t, c.write([]byte("here")))
	require.Equal(t, "here", receive(t, here))

	socket := c.socket.Load()
	c.resolve(t.Context())
	require.Same(t, socket, c.socket.Load()) // the address has not changed

	c.addr = there.LocalAddr().String()
	c.resolve(t.Context())
	require.NoError(t, c.write([]byte("there")))
	require.Equal(t, "there", receive(t, there))
	require.ErrorIs(t, (*socket).Close(), net.ErrClosed)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c.addr = "jaeger.example:6831"
	c.resolve(ended) // fails
	require.NoError(t, c.write([]byte("still there")))
	require.Equal(t, "still there", receive(t, there))
	require.NoError(t, (*c.socket.Load()).Close())
}

// Some Jaegers listen on the IPv4 address of localhost, and not on its IPv6 address.
func TestIPv4IsPreferred(t *testing.T) {
	four, mapped, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("::1")
	require.Equal(t, four, preferred([]netip.Addr{six, four}))
	require.Equal(t, four, preferred([]netip.Addr{six, mapped}))
	require.Equal(t, six, preferred([]netip.Addr{six}))
}
