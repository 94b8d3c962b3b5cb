package conns

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/client/failure"
)

// contentType is that of go-micro's gRPC client, by default.
const contentType = "application/grpc+proto"

// connectTimeout is how long a call waits for its node's connection, before it is
// tried at another. A handshake within a data centre takes a few milliseconds.
const connectTimeout = 300 * time.Millisecond

// Call is a call wrapper that makes the call itself, as go-micro's gRPC client does
// and with its errors, but over the node's shared connection. A node that did not
// answer in time gets a new one, and is not preferred until that is up. Calls that
// are not protobuf over gRPC, as with --client=rpc, are left to go-micro.
func (p *Pool) Call(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		if req.ContentType() != contentType {
			return next(ctx, node, req, rsp, opts)
		}
		c, err := p.take(node.Address)
		if err != nil {
			return errors.InternalServerError(failure.ClientID, "connecting to %s: %v", node.Address, err)
		}
		defer p.release(c)
		if err := wait(ctx, c); err != nil {
			p.mu.Lock()
			c.untried = false
			p.mu.Unlock()
			return errors.InternalServerError(failure.ClientID, "connecting to %s: %v", node.Address, err)
		}
		err = c.Invoke(outgoing(ctx), method(req), req.Body(), rsp)
		if err != nil && ctx.Err() != nil {
			p.replace(node.Address, c)
		}
		p.note(c, err)
		return p.microError(node.Address, err)
	}
}

// wait returns nil when c is connected, or has failed to connect, which Invoke will
// tell, and an error after connectTimeout.
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

// outgoing puts go-micro's metadata where gRPC's is. It leaves out those headers of
// go-micro's that gRPC has too: a server starts a timer for each deadline, and a
// value that no two calls share takes a place in HTTP/2's table on both sides.
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

// microError returns a call's error as go-micro's client does: the server's own one,
// or a 500 of the client.
func (p *Pool) microError(address string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		return e
	}
	if s.Code() != codes.Unavailable {
		return errors.InternalServerError(failure.ClientID, "%s", s.Message())
	}
	hint := ""
	if p.tls == nil && strings.Contains(s.Message(), "server preface") { // as grpc words a connection that was closed at once
		hint = "; if the server has TLS on, use --tls_cert, --tls_key and --tls_ca"
	}
	return errors.InternalServerError(failure.ClientID, "calling %s: %s%s", address, s.Message(), hint)
}
