package modern

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

// Hello starts a new trace, and calls the service's method Hello with name. It returns the
// response's message and the ID of the trace.
func Hello(ctx context.Context, t trace.Tracer, conn grpc.ClientConnInterface, name string, opts ...grpc.CallOption) (answer, id string, err error) {
	ctx, span := t.Start(ctx, "call")
	defer span.End()
	span.SetAttributes(attribute.String("req", name))
	id = span.SpanContext().TraceID().String()
	rsp, err := basisgrpc.Hello(ctx, conn, &proto.Request{Name: name}, opts...)
	if err != nil {
		return "", id, fail(span, err)
	}
	span.SetAttributes(attribute.String("resp", rsp.GetMsg()))
	return rsp.GetMsg(), id, nil
}

// fail marks span as failed, and returns err.
func fail(span trace.Span, err error) error {
	span.SetStatus(otelcodes.Error, err.Error())
	span.SetAttributes(attribute.String("err", err.Error()))
	return err
}
