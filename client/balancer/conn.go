package balancer

import (
	"context"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/internal/mtls"
)

// maxBackoff bounds how long a node that came back is not called.
const maxBackoff = 3 * time.Second

// probeTimeout is how long a connection may stay silent once the balancer probes it.
const probeTimeout = time.Second

// maxResponseBytes bounds a response, and its metadata. The longest response of Hello has
// 265 bytes. gRPC's own limits are 4 MB, and 16 MB for metadata.
const maxResponseBytes = 8 << 10

// epoch is where times of lastRead start. The wall clock may jump.
var epoch = time.Now()

// conn is the connection to one node. The balancer's mutex guards the fields.
type conn struct {
	*grpc.ClientConn
	lastRead *atomic.Int64 // when the node last sent something, in nanoseconds since epoch

	calls        int       // in flight
	retired      bool      // to be closed when the last call ends
	untried      bool      // neither connected nor failed yet
	probed       bool      // the balancer waits for a sign of life
	failures     int       // consecutive server errors
	ejectedUntil time.Time // zero if the node was never ejected
}

// take returns the connection to a node for one call, which release ends.
func (b *Balancer) take(service, address string) (*conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.groups[service][address]
	if c == nil {
		var err error
		if c, err = b.dial(service, address); err != nil {
			return nil, err
		}
		c.untried = true
		if b.groups[service] == nil {
			b.groups[service] = map[string]*conn{}
		}
		b.groups[service][address] = c
	}
	c.calls++
	return c, nil
}

// release ends a call that take began.
func (b *Balancer) release(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.calls--
	if c.retired && c.calls == 0 {
		c.close()
	}
}

// retire closes c, which no new call gets, as soon as it has no calls in flight. The
// balancer's mutex must be held.
func (c *conn) retire() {
	c.retired = true
	if c.calls == 0 {
		c.close()
	}
}

// close closes c in the background: gRPC blocks for up to 5 s if the node does not read.
func (c *conn) close() { go c.ClientConn.Close() }

// note records how a call over c ended. Any outcome but a server error ends the series
// of consecutive failures, even a timeout.
func (b *Balancer) note(c *conn, outcome failure.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !outcome.EjectsNode() {
		c.failures = 0
		return
	}
	if c.failures++; c.failures >= ejectFailures {
		c.ejectedUntil = time.Now().Add(ejectTime)
	}
}

// probe finds out whether c still works, after a call without a response: the node may
// be slow, or frozen, or out of reach. Until then the node counts as not connected. A
// healthy node responds, if only to say that it has no health service. A connection that
// stays silent is replaced; calls in flight on it go on.
func (b *Balancer) probe(service, address string, c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.probed || c.retired {
		return
	}
	c.probed = true
	c.calls++
	go func() {
		defer b.release(c)
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		began := time.Now()
		_ = c.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		silent := ctx.Err() != nil && !c.readSince(began)

		b.mu.Lock()
		defer b.mu.Unlock()
		c.probed = false
		if silent {
			b.replace(service, address, c)
		}
	}()
}

// readSince reports whether the node sent anything since t.
func (c *conn) readSince(t time.Time) bool { return c.lastRead.Load() >= int64(t.Sub(epoch)) }

// replace puts a new connection in the place of old. The node stays ejected if it is.
// b.mu must be held.
func (b *Balancer) replace(service, address string, old *conn) {
	if b.groups[service][address] != old {
		return
	}
	c, err := b.dial(service, address)
	if err != nil {
		return // the address was good for old, so this does not happen
	}
	c.ejectedUntil = old.ejectedUntil
	c.Connect()
	b.groups[service][address] = c
	old.retire()
}

// dial returns a connection that is not connected yet.
func (b *Balancer) dial(service, address string) (*conn, error) {
	creds := insecure.NewCredentials()
	if b.tls != nil {
		config := b.tls
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName = service
		}
		creds = mtls.ClientCredentials(config)
	}
	lastRead := new(atomic.Int64)
	// Escaped, any text is an address. One that cannot be dialed is a node that is not
	// connected.
	cc, err := grpc.NewClient("passthrough:///"+url.PathEscape(address),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return &timedConn{nc, lastRead}, nil
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithMaxHeaderListSize(maxResponseBytes),
		// With windows that adapt, gRPC pings the server again and again.
		grpc.WithStaticStreamWindowSize(64<<10),
		grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithDisableRetry(), // go-micro retries, at another node
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: maxBackoff,
		}))
	if err != nil {
		return nil, err
	}
	return &conn{ClientConn: cc, lastRead: lastRead}, nil
}

// timedConn is a network connection that records when it last received something.
type timedConn struct {
	net.Conn
	lastRead *atomic.Int64
}

func (c *timedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.lastRead.Store(int64(time.Since(epoch)))
	}
	return n, err
}
