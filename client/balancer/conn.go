package balancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gomicroexample/basis/internal/mtls"
)

// connectTimeout is how long an attempt waits for its node's connection. A handshake
// within a data center takes a few milliseconds.
const connectTimeout = 300 * time.Millisecond

// maxBackoff bounds how long a node that came back is not called.
const maxBackoff = 3 * time.Second

// probeTimeout is how long a connection may stay silent once the balancer probes it.
const probeTimeout = time.Second

// silentTime is how long a connection must have been silent to be probed when another one
// is. At many calls a second, no node that responds is silent for so long.
const silentTime = 300 * time.Millisecond

// dialTimeout is how long a TCP handshake may take. The kernel repeats a lost SYN after 1 s.
// Without a timeout of its own, an attempt would last for as long as gRPC's back-off, and a
// node that came back in the middle of one would wait for two of them.
const dialTimeout = 1500 * time.Millisecond

// maxResponseBytes bounds a response, and its metadata. The longest response of Hello has
// 265 bytes. gRPC's own limits are 4 MB, and 16 MB for metadata.
const maxResponseBytes = 8 << 10

// epoch is where times of lastRead start. The wall clock may jump.
var epoch = time.Now()

// maxUnlisted bounds the connections to nodes that the registry does not list, as calls
// with client.WithAddress make.
const maxUnlisted = 64

// conn is the connection to one node. The mutex of its group guards the fields.
type conn struct {
	*grpc.ClientConn
	lastRead *atomic.Int64 // when the node last sent something, in nanoseconds since epoch

	state        connectivity.State // as last seen by watch
	calls        int                // in flight
	retired      bool               // to be closed when the last call ends
	untried      bool               // neither connected nor failed yet
	probed       bool               // the balancer waits for a sign of life
	failures     int                // consecutive server errors
	ejectedUntil time.Time          // zero if the node was never ejected
}

// callable reports whether c is connected, or connecting for the first time.
func (c *conn) callable() bool {
	return c.untried || c.state == connectivity.Ready && !c.probed
}

// take returns the connection to a node for one call, which release ends. It creates the
// connection if there is none.
func (g *group) take(address string) (*conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.conns[address]
	if c == nil && g.closed {
		return nil, errors.New("the balancer is closed")
	}
	if c == nil {
		if len(g.conns) >= maxUnlisted+len(g.nodes()) {
			g.closeUnlisted()
		}
		var err error
		if c, err = g.dial(address); err != nil {
			return nil, err
		}
		c.untried = true
		g.conns[address] = c
	}
	c.calls++
	return c, nil
}

// release ends a call that take began.
func (g *group) release(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.calls--
	if c.retired && c.calls == 0 {
		c.close()
	}
}

// retire closes c, which no new call gets, as soon as it has no calls in flight. The
// group's mutex must be held.
func (c *conn) retire() {
	c.retired = true
	if c.calls == 0 {
		c.close()
	}
}

// close closes c in the background: gRPC blocks for up to 5 s if the node does not read.
func (c *conn) close() { go c.ClientConn.Close() }

// watch follows the state of c until c is closed, and connects c whenever it is idle.
func (g *group) watch(c *conn) {
	for state := c.GetState(); state != connectivity.Shutdown; state = c.GetState() {
		g.mu.Lock()
		c.state = state
		if state == connectivity.Ready || state == connectivity.TransientFailure {
			c.untried = false
		}
		retired := c.retired
		g.version.Add(1)
		g.mu.Unlock()
		if state == connectivity.Idle && !retired {
			c.Connect()
		}
		c.WaitForStateChange(context.Background(), state)
	}
}

// connect waits until c is connected, or failed to connect; Invoke then returns the
// error. It returns an error itself after connectTimeout.
func (g *group) connect(ctx context.Context, c *conn) error {
	if c.GetState() == connectivity.Ready {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no answer within %v", connectTimeout))
	defer cancel()
	for {
		state := c.GetState()
		switch state {
		case connectivity.Ready, connectivity.TransientFailure, connectivity.Shutdown:
			return nil
		}
		if !c.WaitForStateChange(ctx, state) {
			g.mu.Lock()
			c.untried = false
			g.version.Add(1)
			g.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

// suspect probes c, after a call to which its node sent nothing at all. Whatever keeps the
// node from responding, such as a host or a link that is down, may keep other nodes too,
// and finding out would cost a call for each. So suspect also probes all other connections
// that have been silent for silentTime, but not more often than probes end.
func (g *group) suspect(address string, c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probe(address, c)
	if time.Since(g.swept) < probeTimeout {
		return
	}
	g.swept = time.Now()
	for address, c := range g.conns {
		if c.callable() && !c.untried && !c.readSince(g.swept.Add(-silentTime)) {
			g.probe(address, c)
		}
	}
}

// probe finds out whether c still works, after a call without a response: the node may
// be slow, or frozen, or out of reach. Until then the node counts as not connected. A
// healthy node responds, if only to say that it has no health service. A connection that
// stays silent is replaced; calls in flight on it go on. g.mu must be held.
func (g *group) probe(address string, c *conn) {
	if c.probed || c.retired {
		return
	}
	c.probed = true
	c.calls++
	g.version.Add(1)
	go func() {
		defer g.release(c)
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		began := time.Now()
		_ = c.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		silent := ctx.Err() != nil && !c.readSince(began)

		g.mu.Lock()
		defer g.mu.Unlock()
		c.probed = false
		g.version.Add(1)
		if silent {
			g.replace(address, c)
		}
	}()
}

// readSince reports whether the node sent anything since t.
func (c *conn) readSince(t time.Time) bool { return c.lastRead.Load() >= int64(t.Sub(epoch)) }

// replace puts a new connection in the place of old. The node stays ejected if it is.
// g.mu must be held.
func (g *group) replace(address string, old *conn) {
	if g.conns[address] != old {
		return
	}
	c, err := g.dial(address)
	if err != nil {
		return // the address was good for old, so this does not happen
	}
	c.ejectedUntil = old.ejectedUntil
	g.conns[address] = c
	old.retire()
}

// dial returns a connection that begins to connect.
func (g *group) dial(address string) (*conn, error) {
	creds := insecure.NewCredentials()
	if config := g.balancer.tls; config != nil {
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName = g.service
		}
		creds = mtls.ClientCredentials(config)
	}
	lastRead := new(atomic.Int64)
	// Escaped, any text is an address. One that cannot be dialed is a node that is not
	// connected.
	cc, err := grpc.NewClient("passthrough:///"+url.PathEscape(address), append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := dialTCP(ctx, address)
			if err != nil {
				return nil, err
			}
			g.opened.Add(1)
			return &timedConn{nc, lastRead}, nil
		}),
		grpc.WithNoProxy(), // HTTPS_PROXY is not for calls between services
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithMaxHeaderListSize(maxResponseBytes),
		// With windows that adapt, gRPC pings the server again and again.
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(64 << 10),
		grpc.WithDisableRetry(), // go-micro retries, at another node
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: maxBackoff,
		}),
	}, g.balancer.dialOptions...)...)
	if err != nil {
		return nil, err
	}
	c := &conn{ClientConn: cc, lastRead: lastRead}
	go g.watch(c)
	return c, nil
}

// dialTCP connects to address, within dialTimeout.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
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
