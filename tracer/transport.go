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
	// resolveTimeout is how long connect waits for the first lookup of the name in an address. A
	// program that makes one call and exits needs this time to send its spans. If the name server
	// is down, the delay is too short for a user to notice.
	resolveTimeout = 200 * time.Millisecond
	// resolveInterval is the pause between two lookups of the name. If Jaeger's name does not
	// resolve yet, or if Jaeger moves to another address, Jaeger gets spans after the next
	// successful lookup.
	resolveInterval = 5 * time.Second
	// closeTimeout is how long Close waits for the tracer to send the last spans.
	closeTimeout = time.Second
)

var errResolving = errors.New("the name in Jaeger's address is still being looked up")

// connection sends UDP packets to an address. In the background, it repeatedly looks up the name in
// the address. jaeger-client-go's connection blocks its caller during a lookup, before the first
// packet and after each refused packet.
type connection struct {
	addr    string
	logger  *logger
	socket  atomic.Pointer[net.Conn] // nil until a lookup has succeeded
	stop    context.CancelFunc
	stopped chan struct{}
	refused bool // true if the host refused the packet before the last packet
}

// connect returns a connection to addr. It waits up to resolveTimeout for the first lookup. addr
// must be valid for CheckAddress.
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

// resolve looks up the host, and replaces the socket if the host's address has changed. If the
// lookup fails, resolve keeps the socket.
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

// preferred returns the first IPv4 address, or the first address if there is no IPv4 address, as
// net.ResolveUDPAddr does. It has to guess, because UDP does not report on which of a host's
// addresses Jaeger listens.
func preferred(ips []netip.Addr) netip.Addr {
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			return ip.Unmap()
		}
	}
	return ips[0]
}

// write sends one packet. If Jaeger is down, its host refuses the packet. The system reports the
// refusal as the error of the next packet, and does not send the next packet. So write sends a
// packet a second time after an error: the packet arrives if Jaeger is up again. write is not safe
// for concurrent use.
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

// close stops the lookups and closes the socket.
func (c *connection) close() error {
	c.stop()
	<-c.stopped
	if socket := c.socket.Load(); socket != nil {
		return (*socket).Close()
	}
	return nil
}

// timeoutCloser closes a tracer, and waits up to closeTimeout. Before it closes the tracer, it
// calls stop, which cancels a request for the sampling strategy.
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
