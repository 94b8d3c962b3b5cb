package tracer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// resolveTimeout is how long connect waits for the name in an address: long enough for
	// a program that makes one call and exits, and too short for anyone to notice that the
	// name server is away.
	resolveTimeout = 200 * time.Millisecond
	// resolveInterval is how often the name is resolved anew: a Jaeger that was
	// started late, or moved, gets spans within that time.
	resolveInterval = 5 * time.Second
	// closeTimeout is how long the end of a program waits for its last spans.
	closeTimeout = time.Second
)

var errResolving = errors.New("the name in Jaeger's address is still being looked up")

// connection sends UDP packets to an address, and looks the name in the address up again and
// again in the background. jaeger-client-go's connection blocks its caller for the lookup,
// before the first packet and after each one that was refused.
type connection struct {
	addr    string
	logger  *logger
	socket  atomic.Pointer[net.Conn] // nil until a lookup has succeeded
	stop    context.CancelFunc
	stopped chan struct{}
	refused bool // whether the packet before the last one was refused
}

// connect returns a connection to addr, which CheckAddress has accepted. It waits for the first
// lookup, for up to resolveTimeout.
func connect(addr string, l *logger) *connection {
	ctx, stop := context.WithCancel(context.Background())
	c := &connection{addr: addr, logger: l, stop: stop, stopped: make(chan struct{})}
	resolved := make(chan struct{})
	go func() {
		defer close(c.stopped)
		c.resolve(ctx)
		close(resolved)
		tick := time.NewTicker(resolveInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.resolve(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	select {
	case <-resolved:
	case <-time.After(resolveTimeout):
	}
	return c
}

// resolve looks the host up, and replaces the socket if the host has moved. If the lookup
// fails, the socket stays.
func (c *connection) resolve(ctx context.Context) {
	_, port, _ := net.SplitHostPort(c.addr)
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", hostOf(c.addr))
	var socket net.Conn
	if err == nil {
		socket, err = net.Dial("udp", net.JoinHostPort(preferred(ips).String(), port))
	}
	old := c.socket.Load()
	switch {
	case err != nil:
		if old == nil && ctx.Err() == nil {
			c.logger.Error(fmt.Sprintf("connecting to Jaeger at %s: %v", c.addr, err))
		}
	case old != nil && (*old).RemoteAddr().String() == socket.RemoteAddr().String():
		socket.Close()
	default:
		c.socket.Store(&socket)
		if old != nil {
			(*old).Close()
		}
	}
}

// preferred returns the first IPv4 address, or the first address, as net.ResolveUDPAddr does.
// UDP does not tell which of a host's addresses Jaeger listens on.
func preferred(ips []netip.Addr) netip.Addr {
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			return ip.Unmap()
		}
	}
	return ips[0]
}

// write sends one packet. A Jaeger that is down refuses it, which is the error of the next
// packet: that is sent again, and is not lost if Jaeger is back. It is not safe for concurrent
// use.
func (c *connection) write(packet []byte) error {
	socket := c.socket.Load()
	if socket == nil {
		return errResolving
	}
	_, err := (*socket).Write(packet)
	c.refused = errors.Is(err, syscall.ECONNREFUSED)
	if err != nil {
		_, err = (*socket).Write(packet)
	}
	return err
}

// close closes the socket, and ends the lookup.
func (c *connection) close() error {
	c.stop()
	<-c.stopped
	if socket := c.socket.Load(); socket != nil {
		return (*socket).Close()
	}
	return nil
}

// timeoutCloser closes a tracer within closeTimeout. It first calls stop, which cancels a
// request for the sampling strategy.
type timeoutCloser struct {
	io.Closer
	stop func()
}

func (c timeoutCloser) Close() error {
	c.stop()
	closed := make(chan error, 1)
	go func() { closed <- c.Closer.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTimeout):
		log.Printf("jaeger: the last spans were not sent within %v", closeTimeout)
		return nil
	}
}
