// Package conns makes calls over one gRPC connection per node, shared by all
// callers, and steers calls to nodes whose connection is up and that do not
// answer with failures only.
//
// go-micro's own pool gives each call under way a connection to itself and
// closes it after any error. And since a node that died stays in the registry
// until its TTL has passed, calls go on being sent to it. So do calls to a node
// that is there and fails at everything.
package conns

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/client/nodes"
)

// contentType is that of go-micro's gRPC client, by default.
const contentType = "application/grpc+proto"

const (
	// connectTimeout is how long a call waits for its node's connection before
	// it is better tried at another node. A handshake within a data centre
	// takes a few milliseconds.
	connectTimeout = 300 * time.Millisecond
	// maxBackoff is how long, at most, passes between attempts to connect to a
	// node, and so how soon one that is back is called again.
	maxBackoff = 3 * time.Second
	// spellFailures is how many 5xx in a row begin a node's bad spell. One or
	// two may be due to what was asked; it is what Envoy's outlier detection
	// takes by default (consecutive_5xx).
	spellFailures = 5
	// spell is how long a bad spell lasts. After it, the first call tells
	// whether the next begins, and is tried again elsewhere if so; that costs
	// so little that Envoy's 30 s (base_ejection_time) are not needed.
	spell = 3 * time.Second
)

// maxAnswerBytes is how large an answer may be, its metadata apart, which may be
// as much. The longest, to a name of 256 bytes, has 265. gRPC's own limits are
// 4 MB and 16 MB.
const maxAnswerBytes = 8 << 10

// Pool is the connections of one client to the nodes of one service. Its methods
// Prefer and Call belong among that client's wrappers and call wrappers.
type Pool struct {
	tls *tls.Config // nil for plaintext

	mu    sync.Mutex
	conns map[string]*conn // by address
}

// New returns an empty pool. Connections are made when they are needed, with TLS
// as config says or, if that is nil, in plaintext.
func New(config *tls.Config) *Pool {
	return &Pool{tls: config, conns: map[string]*conn{}}
}

// conn is one node's connection. Its fields are guarded by the pool's mutex.
type conn struct {
	*grpc.ClientConn
	calls     int       // under way
	retired   bool      // to be closed when the last one ends
	untried   bool      // neither seen up nor seen to fail
	failures  int       // 5xx in a row
	spellEnds time.Time // when the node's last bad spell ends
}

// Prefer is a client wrapper. It hides from the selector's strategy, for each
// attempt anew, the nodes that are known not to be connected; of the others those
// that have a bad spell, since they answered several calls in a row with a 5xx
// and the last of them less than a few seconds ago; and of the others those that
// this call was tried at. None of these hides all that are left. It has to be the
// last wrapper, behind the one that sets the strategy.
func (p *Pool) Prefer(c client.Client) client.Client {
	return nodes.WithSelectOption(c, func(o *selector.SelectOptions) {
		strategy := o.Strategy
		o.Strategy = func(services []*registry.Service) selector.Next {
			p.forget(services)
			var tried []string // addresses; attempts come one after another
			return func() (*registry.Node, error) {
				node, err := strategy(p.preferred(services, tried))()
				if err == nil {
					tried = append(tried, node.Address)
				}
				return node, err
			}
		}
	})
}

// preferred returns the best of the services' nodes: those of the lowest rank.
func (p *Pool) preferred(services []*registry.Service, tried []string) []*registry.Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best []*registry.Node
	lowest := notConnected | badSpell | triedBefore
	for _, service := range services {
		for _, node := range service.Nodes {
			rank := p.rank(node.Address, tried)
			if rank < lowest {
				lowest, best = rank, best[:0]
			}
			if rank == lowest {
				best = append(best, node)
			}
		}
	}
	one := *services[0]
	one.Nodes = best
	return []*registry.Service{&one}
}

// What is against a node: the sum of these is its rank, so that the first counts
// for more than the others together.
const (
	triedBefore = 1 << iota
	badSpell
	notConnected
)

func (p *Pool) rank(address string, tried []string) int {
	rank := 0
	if slices.Contains(tried, address) {
		rank |= triedBefore
	}
	c := p.conns[address]
	if c == nil {
		return rank
	}
	if !c.spellEnds.IsZero() && time.Now().Before(c.spellEnds) {
		rank |= badSpell
	}
	if !c.mayCall() {
		rank |= notConnected
	}
	return rank
}

// forget drops the connections of nodes that are not among services any more. It
// looks for them when there are more connections than nodes, which is soon: new
// nodes are called in their turn.
func (p *Pool) forget(services []*registry.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes := 0
	for _, service := range services {
		nodes += len(service.Nodes)
	}
	if len(p.conns) <= nodes {
		return
	}
	listed := map[string]bool{}
	for _, service := range services {
		for _, node := range service.Nodes {
			listed[node.Address] = true
		}
	}
	for address, c := range p.conns {
		if !listed[address] {
			delete(p.conns, address)
			c.retire()
		}
	}
}

// retire closes c as soon as it has no calls. The pool's mutex must be held, and
// c not be in the pool any more.
func (c *conn) retire() {
	c.retired = true
	if c.calls == 0 {
		c.Close()
	}
}

// mayCall reports whether c is connected, or may be for all that is known: its
// first connection is still being made. A lost connection is made again in the
// background. The pool's mutex must be held.
func (c *conn) mayCall() bool {
	switch c.GetState() {
	case connectivity.Ready:
		c.untried = false
		return true
	case connectivity.TransientFailure:
		c.untried = false
		return false
	case connectivity.Idle:
		c.Connect()
	}
	return c.untried
}

// note takes down how a call over c ended.
func (p *Pool) note(c *conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isServers(err) {
		c.failures = 0
		return
	}
	if c.failures++; c.failures >= spellFailures {
		c.spellEnds = time.Now().Add(spell)
	}
}

// Call is a call wrapper that makes the call itself, as go-micro's gRPC client
// does but over the node's shared connection. Its errors are go-micro's too. A
// node that did not answer in time gets a new connection: until it has taken
// part in making that, it is not preferred. Calls that are not protobuf over
// gRPC, as with --client=rpc, are left to go-micro.
func (p *Pool) Call(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		if req.ContentType() != contentType {
			return next(ctx, node, req, rsp, opts)
		}
		c, err := p.take(node.Address)
		if err != nil {
			return errors.InternalServerError("go.micro.client", "connecting to %s: %v", node.Address, err)
		}
		defer p.release(c)
		if err := wait(ctx, c); err != nil {
			p.mu.Lock()
			c.untried = false
			p.mu.Unlock()
			return errors.InternalServerError("go.micro.client", "connecting to %s: %v", node.Address, err)
		}
		err = c.Invoke(outgoing(ctx), method(req), req.Body(), rsp)
		if err != nil && ctx.Err() != nil {
			p.replace(node.Address, c)
		}
		p.note(c, err)
		return p.microError(node.Address, err)
	}
}

// wait returns when c is connected, or has failed to connect, which the call
// will tell. Taking too long is an error.
func wait(ctx context.Context, c *conn) error {
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
		case connectivity.Idle:
			c.Connect()
		}
		if !c.WaitForStateChange(ctx, state) {
			return context.Cause(ctx)
		}
	}
}

// take returns the connection to address for one call, which ends with release.
func (p *Pool) take(address string) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[address]
	if c == nil {
		var err error
		if c, err = p.dial(address); err != nil {
			return nil, err
		}
		c.untried = true
		p.conns[address] = c
	}
	c.calls++
	return c, nil
}

// release ends a call that take began.
func (p *Pool) release(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.calls--
	if c.retired && c.calls == 0 {
		c.Close()
	}
}

// replace puts a new connection in the place of old, unless another call did
// so already. Calls that are under way on old go on.
func (p *Pool) replace(address string, old *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[address] != old {
		return
	}
	c, err := p.dial(address)
	if err != nil {
		return // it could be dialed before, so this does not happen
	}
	c.Connect()
	p.conns[address] = c
	old.retire()
}

func (p *Pool) dial(address string) (*conn, error) {
	creds := insecure.NewCredentials()
	if p.tls != nil {
		creds = newTLS(p.tls)
	}
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithMaxHeaderListSize(maxAnswerBytes),
		// Answers are small. A window that adapts asks the server how long the
		// way is, again and again.
		grpc.WithStaticStreamWindowSize(64<<10),
		grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithDisableRetry(), // go-micro's is at another node
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: maxBackoff,
		}))
	if err != nil {
		return nil, err
	}
	return &conn{ClientConn: cc}, nil
}

// outgoing puts go-micro's metadata where gRPC's is. The deadline is in gRPC's own
// header, and the content type too, so that go-micro's for both are left out: a
// deadline that a server has twice costs it a timer, and each header that no two
// calls share a place in HTTP/2's table on both sides.
func outgoing(ctx context.Context) context.Context {
	m, ok := metadata.FromContext(ctx)
	if !ok {
		return ctx
	}
	return grpcmetadata.NewOutgoingContext(ctx, grpcmetadata.New(m))
}

// method returns /service.Struct/Method for the endpoint Struct.Method.
func method(req client.Request) string {
	structName, methodName, _ := strings.Cut(req.Endpoint(), ".")
	return "/" + req.Service() + "." + structName + "/" + methodName
}

// microError returns the error of a call to address as go-micro's client does:
// the server's own one, or a 500 of the client.
func (p *Pool) microError(address string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		return e
	}
	if s.Code() != codes.Unavailable {
		return errors.InternalServerError("go.micro.client", "%s", s.Message())
	}
	hint := ""
	if p.tls == nil && strings.Contains(s.Message(), "server preface") { // as grpc words a connection that was closed at once
		hint = "; if the server has TLS on, use --tls_cert, --tls_key and --tls_ca"
	}
	return errors.InternalServerError("go.micro.client", "calling %s: %s%s", address, s.Message(), hint)
}

// isServers reports whether a call's error is a failure of the server: a 5xx, or
// an error that is none of go-micro's, which gRPC's servers make Unknown.
func isServers(err error) bool {
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		return failure.IsServers(e)
	}
	return s.Code() == codes.Unknown
}
