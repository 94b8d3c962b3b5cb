package balancer

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/registry"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/client/failure"
)

// contentType is the default content type of go-micro's gRPC client.
const contentType = "application/grpc+proto"

// Attempt is one attempt of a call, at the node with the address Address (host:port).
type Attempt struct {
	Address string
	Sent    time.Time // when the balancer began to send it
}

// attemptKey is the context key of a pointer to the last attempt.
type attemptKey struct{}

// RecordAttempt returns a context for one call, and a pointer that WrapCall sets to the
// last attempt of the call; nil if there was none. The pointer is atomic because an
// attempt may go on for a moment after its call has returned.
func RecordAttempt(ctx context.Context) (context.Context, *atomic.Pointer[Attempt]) {
	last := new(atomic.Pointer[Attempt])
	return context.WithValue(ctx, attemptKey{}, last), last
}

// WrapCall is a call wrapper, for micro.WrapCall. It makes the attempt in the place of
// go-micro's gRPC client, over the node's shared connection. Its errors are those of
// go-micro's client, except that a server's error always has another ID than
// failure.ClientID. Attempts that are not protobuf over gRPC, as with --client=rpc, are
// left to next.
//
// An attempt whose context has ended is not sent. A context that ends while the attempt
// is in flight does the connection no harm.
func (b *Balancer) WrapCall(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		// go-micro may get here after its caller has left: it sleeps before a retry.
		if err := ctx.Err(); err != nil {
			return contextError(err)
		}
		if last, ok := ctx.Value(attemptKey{}).(*atomic.Pointer[Attempt]); ok {
			last.Store(&Attempt{node.Address, time.Now()})
		}
		if req.ContentType() != contentType {
			return next(ctx, node, req, rsp, opts)
		}
		g := b.group(req.Service())
		c, err := g.take(node.Address)
		if err == nil {
			defer g.release(c)
			err = g.connect(ctx, c)
		}
		if err != nil && ctx.Err() != nil {
			return contextError(ctx.Err())
		}
		if err != nil {
			return errors.InternalServerError(failure.ClientID, "connecting to %s: %v", node.Address, err)
		}
		began := time.Now()
		err = c.Invoke(outgoing(ctx), method(req), req.Body(), rsp)
		if err != nil && ctx.Err() != nil && !c.readSince(began) {
			g.suspect(node.Address, c)
		}
		err = b.microError(ctx, req.Service(), node.Address, err)
		g.note(c, failure.Of(err))
		return err
	}
}

// outgoing returns a context that has go-micro's metadata as gRPC's. It leaves out the
// headers that go-micro adds and gRPC has too: a server starts a timer for each deadline,
// and a value that no two calls share takes a place in HTTP/2's table on both sides.
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

// contextError returns the error that go-micro's client has for a context that ended.
func contextError(err error) error { return errors.New(failure.ClientID, err.Error(), 408) }

// microError returns a gRPC error as go-micro's client does: the error that the server
// returned, or one of the client.
func (b *Balancer) microError(ctx context.Context, service, address string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		if e.Id == failure.ClientID { // the server passes on an error of its own client
			e.Id = service + "/" + e.Id
		}
		return e
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded:
		if ctx.Err() != nil {
			return contextError(ctx.Err())
		}
	case codes.Unknown: // gRPC's code for a handler's plain error
		return errors.InternalServerError(service, "%s", s.Message())
	case codes.Unavailable:
		hint := ""
		if b.tls == nil && strings.Contains(s.Message(), "server preface") { // gRPC's words for a connection that was closed at once
			hint = "; if the server has TLS on, use --tls_cert, --tls_key and --tls_ca"
		}
		return errors.InternalServerError(failure.ClientID, "calling %s: %s%s", address, s.Message(), hint)
	}
	return errors.InternalServerError(failure.ClientID, "%s", s.Message())
}
