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

// Attempt is one attempt of a call at one node.
type Attempt struct {
	Address string    // host:port of the node
	Sent    time.Time // when the attempt began; connecting to the node comes after this time
}

// attemptKey is the context key of the pointer to a call's last attempt.
type attemptKey struct{}

// RecordAttempt returns a context for one call, and a pointer to the last attempt of this call.
// WrapCall stores the attempt in the pointer. If there was no attempt, Load returns nil. The
// pointer is atomic because an attempt may continue for a moment after its call has returned.
func RecordAttempt(ctx context.Context) (context.Context, *atomic.Pointer[Attempt]) {
	last := new(atomic.Pointer[Attempt])
	return context.WithValue(ctx, attemptKey{}, last), last
}

// WrapCall is a call wrapper for micro.WrapCall. It makes the attempt over the node's shared
// connection, in place of go-micro's gRPC client. It calls next only for attempts that do not use
// protobuf over gRPC, for example with --client=rpc.
//
// WrapCall returns the error that the server returned, or an error of the client. An error of the
// client has the ID failure.ClientID and the code 408 or 500. go-micro's client returns the same
// errors, but their texts may differ. A server may also return an error with the ID
// failure.ClientID. In this case, WrapCall puts the name of the service before the ID, so that the
// ID failure.ClientID always means an error of the client.
//
// WrapCall does not send an attempt whose context has ended. If the context ends while the attempt
// is in flight, the connection stays open. If, in addition, the node sent nothing during the
// attempt, WrapCall probes the connection.
func (b *Balancer) WrapCall(next client.CallFunc) client.CallFunc {
	return func(ctx context.Context, node *registry.Node, req client.Request, rsp any, opts client.CallOptions) error {
		// Before a retry, go-micro sleeps, even if the call's context ends. So the caller may
		// already have given up.
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

// outgoing returns ctx with its go-micro metadata as outgoing gRPC metadata. Unlike go-micro's
// client, it does not add the headers named timeout and x-content-type, because gRPC itself sends
// headers with the same information. The header named timeout would also make a server start a
// second timer. The value of this header would be different in each call, and each value would take
// space in the header tables of HTTP/2 on both sides.
func outgoing(ctx context.Context) context.Context {
	m, ok := metadata.FromContext(ctx)
	if !ok {
		return ctx
	}
	return grpcmetadata.NewOutgoingContext(ctx, grpcmetadata.New(m))
}

// method returns the full gRPC method, /service.Struct/Method, for the endpoint Struct.Method.
func method(req client.Request) string {
	structName, methodName, _ := strings.Cut(req.Endpoint(), ".")
	return "/" + req.Service() + "." + structName + "/" + methodName
}

// contextError returns the error that go-micro's client returns if a call's context ends with err.
func contextError(err error) error { return errors.New(failure.ClientID, err.Error(), 408) }

// microError converts a gRPC error to an error of go-micro, as go-micro's client does. A go-micro
// server sends its error as JSON, in the message of the gRPC status. The result is the error that
// the server returned, or an error of the client.
func (b *Balancer) microError(ctx context.Context, service, address string, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if e := errors.Parse(s.Message()); e.Code > 0 {
		if e.Id == failure.ClientID { // the error is from a go-micro client inside the server
			e.Id = service + "/" + e.Id
		}
		return e
	}
	switch code := s.Code(); {
	case ctx.Err() != nil && (code == codes.Canceled || code == codes.DeadlineExceeded):
		return contextError(ctx.Err())
	case code == codes.Unknown: // gRPC sends this code if a handler's error has no code
		return errors.InternalServerError(service, "%s", s.Message())
	case code == codes.Unavailable:
		hint := ""
		// If the server closed the connection at once, gRPC's message contains "server preface".
		if b.tls == nil && strings.Contains(s.Message(), "server preface") {
			hint = "; if the server has TLS on, use --tls_cert, --tls_key and --tls_ca"
		}
		return errors.InternalServerError(failure.ClientID, "calling %s: %s%s", address, s.Message(), hint)
	default: // gRPC itself rejected the request, for example because of its size
		return errors.InternalServerError(failure.ClientID, "%s", s.Message())
	}
}
