// Package handler answers the Basis service's calls.
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

// MaxNameBytes is the longest name that Hello greets.
const MaxNameBytes = 256

// Basis implements proto.BasisHandler.
type Basis struct {
	// ID names the service in errors, as in go.micro.srv.basis.
	ID string
	// Delay is how long each call takes, in place of a real service's work; 0 is not
	// at all.
	Delay time.Duration
}

// Hello answers "Hello " and the name. A name that is empty or longer than
// MaxNameBytes is a BadRequest (400), and so is one that is not UTF-8 or not on
// one line: it would add lines, or escape codes, to whatever shows it. When the
// caller's deadline passes, or the caller goes away, before the delay is over, that
// is a Timeout (408).
//
// It adds a span to the caller's trace, with the tags req and res, and error
// when it fails.
func (b *Basis) Hello(ctx context.Context, req *proto.Request, rsp *proto.Response) (err error) {
	log.Info("Yoooo! I received it") // as in the article

	span, ctx := startSpan(ctx, "Hello")
	// Text, not messages: the reporter would format those later, at more cost than
	// sending them, and while gRPC still writes them.
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

// checkName returns a BadRequest if name is not one that can be greeted.
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

// startSpan starts a child of the span in ctx, which the opentracing plugin's handler
// wrapper put there, on that span's own tracer. Without one, nothing is traced.
func startSpan(ctx context.Context, name string) (opentracing.Span, context.Context) {
	parent := opentracing.SpanFromContext(ctx)
	if parent == nil {
		return opentracing.NoopTracer{}.StartSpan(name), ctx
	}
	return opentracing.StartSpanFromContextWithTracer(ctx, parent.Tracer(), name)
}
