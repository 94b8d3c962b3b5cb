// Package handler implements the Basis service.
package handler

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/util/log"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"

	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
)

// MaxNameBytes is the maximum length of a name in Hello, in bytes of UTF-8.
const MaxNameBytes = 256

// Basis implements proto.BasisHandler.
type Basis struct {
	// ID identifies the service in errors, for example go.micro.srv.basis.
	ID string
	// Delay is how long Hello waits before it returns, in place of a real service's work. The
	// default is 0: Hello does not wait.
	Delay time.Duration
}

// Hello responds with "Hello " and the name. It returns a BadRequest (400) if the name is empty, is
// longer than MaxNameBytes, is not UTF-8, or has a control character or a line separator, which
// would add lines or escape codes to a log or a terminal. It returns a Timeout (408) if the call's
// context ends before Delay is over.
//
// Hello adds a span to the caller's trace. The span has the tags req and res, and the tag error if
// Hello fails.
func (b *Basis) Hello(ctx context.Context, req *proto.Request, rsp *proto.Response) (err error) {
	log.Info("Yoooo! I received it") // as in the article

	span, ctx := startSpan(ctx, "Hello")
	// The tags are text, not messages: the reporter formats tags later. Formatting a message costs
	// more than sending it, and would race with gRPC, which is still encoding the message.
	span.SetTag("req", oneline.Escape(req.GetName()))
	defer func() {
		if err != nil {
			ext.LogError(span, err)
		}
		span.SetTag("res", oneline.Escape(rsp.GetMsg()))
		span.Finish()
	}()

	if err := b.checkName(req.GetName()); err != nil {
		return err
	}
	if b.Delay > 0 {
		select {
		case <-time.After(b.Delay):
		case <-ctx.Done():
			return errors.Timeout(b.ID, "stopped before the delay of %v was over: %v", b.Delay, ctx.Err())
		}
	}
	rsp.Msg = "Hello " + req.GetName()
	return nil
}

// checkName returns a BadRequest if Hello does not accept name.
func (b *Basis) checkName(name string) error {
	switch breaks := strings.IndexFunc(name, oneline.Breaks); {
	case name == "":
		return errors.BadRequest(b.ID, "name is empty; want 1 to %d bytes", MaxNameBytes)
	case len(name) > MaxNameBytes:
		return errors.BadRequest(b.ID, "name is %d bytes; want 1 to %d", len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return errors.BadRequest(b.ID, "name is not UTF-8")
	case breaks >= 0:
		r, _ := utf8.DecodeRuneInString(name[breaks:])
		return errors.BadRequest(b.ID, "name has the control character %U; want text on one line", r)
	}
	return nil
}

// startSpan starts a child of the span in ctx, with the tracer of the span in ctx. The handler
// wrapper of the opentracing plugin puts the span into ctx. Without a span in ctx, startSpan
// returns a span that is not recorded.
func startSpan(ctx context.Context, name string) (opentracing.Span, context.Context) {
	parent := opentracing.SpanFromContext(ctx)
	if parent == nil {
		return opentracing.NoopTracer{}.StartSpan(name), ctx
	}
	return opentracing.StartSpanFromContextWithTracer(ctx, parent.Tracer(), name)
}
