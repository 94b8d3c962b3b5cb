// Package conns makes calls over one gRPC connection per node, shared by all
// callers, and keeps them from nodes that are not connected or fail at everything.
//
// go-micro's own pool gives each call under way a connection to itself and closes
// it after any error. And go-micro calls a node that died until its TTL has passed.
package conns

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gomicroexample/basis/internal/mtls"
)

// maxBackoff is about how long a node that is back is not called.
const maxBackoff = 3 * time.Second

// maxAnswerBytes is how large an answer may be, and its metadata. The longest
// answer has 265; gRPC's own limits are 4 MB, and 16 MB for metadata.
const maxAnswerBytes = 8 << 10

// Pool is the connections of one client to the nodes of one service. Its methods
// Prefer and Call are a wrapper and a call wrapper of that client.
type Pool struct {
	tls *tls.Config // nil for plaintext

	mu    sync.Mutex
	conns map[string]*conn // by address
}

// New returns an empty pool. Connections are made when they are needed, in
// plaintext if config is nil.
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

// replace puts a new connection in the place of old, unless another call did.
// Calls under way on old go on. A bad spell is the node's, and goes on too.
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
	c.spellEnds = old.spellEnds
	c.Connect()
	p.conns[address] = c
	old.retire()
}

func (p *Pool) dial(address string) (*conn, error) {
	creds := insecure.NewCredentials()
	if p.tls != nil {
		creds = mtls.ClientCredentials(p.tls)
	}
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithMaxHeaderListSize(maxAnswerBytes),
		// Windows that adapt would have gRPC ping the server again and again.
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

// forget drops the connections of nodes that are not among services any more, as
// soon as there are more connections than nodes.
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

// retire closes c, which is not in the pool any more, as soon as it has no calls.
func (c *conn) retire() {
	c.retired = true
	if c.calls == 0 {
		c.Close()
	}
}
