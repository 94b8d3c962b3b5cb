// Package otelspans creates two spans of each call with OpenTelemetry: "call" in the client and
// "Hello" in the server. The pair's code creates the same two spans. The package is for contenders
// whose frameworks trace with OpenTelemetry. The frameworks create the other two spans of a call.
package otelspans

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

// Hello returns a server of the method Hello. The server creates a span for each call, as the
// pair's handler does.
func Hello(t trace.Tracer) basisgrpc.Server {
	return func(ctx context.Context, req *proto.Request) (*proto.Response, error) {
		_, span := t.Start(ctx, "Hello")
		defer span.End()
		span.SetAttributes(attribute.String("req", req.GetName()))
		rsp := &proto.Response{Msg: contender.Hello(req.GetName())}
		span.SetAttributes(attribute.String("res", rsp.GetMsg()))
		return rsp, nil
	}
}

// Call returns a function that calls Hello on conn. Each call has a root span, as in the pair's
// client.
func Call(t trace.Tracer, conn grpc.ClientConnInterface) contender.Call {
	return func(ctx context.Context, name string) (string, error) {
		ctx, span := t.Start(ctx, "call")
		defer span.End()
		req := &proto.Request{Name: name}
		span.SetAttributes(attribute.String("req", req.GetName()))
		rsp, err := basisgrpc.Hello(ctx, conn, req)
		if err != nil {
			span.SetAttributes(attribute.String("err", err.Error()))
			return "", err
		}
		span.SetAttributes(attribute.String("resp", rsp.GetMsg()))
		return rsp.GetMsg(), nil
	}
}
