package modern

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"
)

// Propagator writes and reads W3C's trace header. The pair's programs read this header too. They
// also write it if JAEGER_PROPAGATION is jaeger,w3c.
var Propagator propagation.TextMapPropagator = propagation.TraceContext{}

// flushTimeout is the time limit for sending the last spans.
const flushTimeout = time.Second

// NewTracing returns a provider that sends all spans of service to an OTLP receiver over gRPC. The
// address is the receiver's host:port. The returned function sends the last spans, and takes at
// most a second. If the receiver is unreachable, NewTracing returns no error, and the spans are
// lost.
func NewTracing(service, address string) (*sdktrace.TracerProvider, func() error, error) {
	exporter, err := otlptracegrpc.New(context.Background(), otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(address))
	if err != nil {
		return nil, nil, fmt.Errorf("exporter of spans to %s: %w", address, err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(service))),
	)
	return provider, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		return provider.Shutdown(ctx)
	}, nil
}
