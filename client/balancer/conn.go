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

// connectTimeout is how long an attempt waits for the connection to its node. A handshake within a
// data center takes a few milliseconds. The connection may break after this wait and before gRPC
// uses it. gRPC then connects again. connectTimeout does not limit this second wait, which ends
// when gRPC is connected, when connecting fails, or when the call's context ends.
const connectTimeout = 300 * time.Millisecond

// maxBackoff is the maximum pause between two attempts to connect to a node. gRPC varies the pause
// by up to 20 %. If a node comes up during the pause, it is not called until the pause ends.
const maxBackoff = 3 * time.Second

// probeTimeout is how long a probe waits for a response. If the node sends nothing in this time,
// the balancer replaces the connection.
const probeTimeout = time.Second

// silentTime is how long a node may send nothing before its connection is suspect. When a call to
// any node gets no response, the balancer probes the connection of this call and all suspect
// connections. At many calls per second, a healthy node always sends something within this time.
const silentTime = 300 * time.Millisecond

// dialTimeout is the timeout of a TCP handshake. It is longer than 1 s, because the kernel repeats
// a lost SYN after 1 s. It is shorter than gRPC's own timeout, which is maxBackoff here. A node may
// come up while a handshake waits for its response. The next handshake starts only when this
// handshake has timed out and a pause of up to maxBackoff has passed. A shorter timeout makes this
// delay shorter.
const dialTimeout = 1500 * time.Millisecond

// maxResponseBytes is the maximum size of a response, and also of a response's metadata. The
// longest response of Hello has 265 bytes. gRPC's defaults are 4 MB for a response and 16 MB for
// metadata.
const maxResponseBytes = 8 << 10

// epoch is the time from which lastRead counts. time.Since(epoch) uses the monotonic clock, so a
// change of the wall clock does not affect it.
var epoch = time.Now()

// maxUnlisted limits the connections to nodes that the registry does not list. Calls with
// client.WithAddress create such connections. Before the balancer creates a connection, it compares
// the number of the service's connections with the number of listed nodes. If there are at least
// maxUnlisted more connections than listed nodes, it closes the connections to unlisted nodes.
const maxUnlisted = 64

// conn is the connection to one node. The mutex of the group guards the fields below lastRead.
type conn struct {
	*grpc.ClientConn
	lastRead *atomic.Int64 // when the node last sent something, in nanoseconds since epoch

	state        connectivity.State // as last seen by watch
	calls        int                // in-flight calls, including a probe
	retired      bool               // no new call uses c; c closes when its last call ends
	untried      bool               // true until the first attempt to connect ends or times out
	probed       bool               // a probe is in flight
	failures     int                // consecutive server errors
	ejectedUntil time.Time          // zero if the node was never ejected
}

// callable reports whether new calls should use c. They should if c is connected and no probe is in
// flight, or if c is connecting for the first time.
func (c *conn) callable() bool {
	return c.untried || c.state == connectivity.Ready && !c.probed
}

// take returns the connection to the node at address, and counts one more call in flight on it. If
// there is no connection, take creates it. The caller must use release when the call has ended.
// take returns an error if the balancer is closed.
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

// release counts the end of a call that take has counted.
func (g *group) release(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.calls--
	if c.retired && c.calls == 0 {
		c.close()
	}
}

// retire closes c as soon as c has no in-flight calls. The caller must have removed c from
// group.conns, so that no new call uses c. The group's mutex must be held.
func (c *conn) retire() {
	c.retired = true
	if c.calls == 0 {
		c.close()
	}
}

// close closes c in the background, because gRPC's Close blocks for up to 5 s if the node does not
// read from the connection.
func (c *conn) close() { go c.ClientConn.Close() }

// watch records the state of c until c is closed. Whenever c is idle, watch starts to connect c,
// unless c is retired.
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

// connect waits until c is connected, has failed to connect, or is closed. It then returns nil,
// even after a failure: the caller's Invoke returns the error. If connectTimeout passes or ctx ends
// first, connect returns an error.
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

// suspect probes c. A call over c has just ended, and the node sent nothing during this call. The
// cause may also affect other nodes, for example if a host or a link is down. If suspect probed
// only c, one call to each of the other affected nodes would fail too. So suspect also probes all
// other connections on which the node has sent nothing for silentTime. It probes these other
// connections at most once per probeTimeout.
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

// probe checks in the background whether c still works. The node may be slow, frozen or
// unreachable. probe calls gRPC's health service, and a healthy node responds even if it has no
// health service. Until the probe ends, the node counts as not connected. If the node sends nothing
// within probeTimeout, probe replaces the connection. In-flight calls continue on the old
// connection. g.mu must be held.
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

// readSince reports whether the node has sent anything since t.
func (c *conn) readSince(t time.Time) bool { return c.lastRead.Load() >= int64(t.Sub(epoch)) }

// replace replaces old with a new connection to the same address. An ejected node stays ejected.
// g.mu must be held.
func (g *group) replace(address string, old *conn) {
	if g.conns[address] != old {
		return
	}
	c, err := g.dial(address)
	if err != nil {
		return // cannot happen: the old connection has the same address
	}
	c.ejectedUntil = old.ejectedUntil
	g.conns[address] = c
	old.retire()
}

// dial returns a new connection. The connection starts to connect in the background. It sends no
// keepalive pings, because suspect probes silent connections.
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
	// PathEscape turns any address into a valid target. So dial returns no error for an address
	// that is not valid, but the node with this address is never connected.
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
		grpc.WithNoProxy(), // HTTPS_PROXY does not apply to calls between services
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithMaxHeaderListSize(maxResponseBytes),
		// With dynamic windows, gRPC pings the server repeatedly to measure the bandwidth.
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(64 << 10),
		// Turns off gRPC's retry policies, because go-micro retries a call at another node. Even
		// so, gRPC sends a request a second time if the node has not processed the request.
		grpc.WithDisableRetry(),
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

// dialTCP connects to address within dialTimeout.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
}

// timedConn is a network connection that records when it last received data.
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
