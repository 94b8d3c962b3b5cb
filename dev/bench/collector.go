package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// collector takes spans as an OpenTelemetry collector does, over OTLP/gRPC, and counts them.
// As of those over UDP, it decodes no span.
type collector struct {
	listener net.Listener
	server   *grpc.Server
	spans    atomic.Int64
}

func newCollector() (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for spans: %w", err)
	}
	c := &collector{listener: l, server: grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))}
	c.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: c.export}},
	}, c)
	go func() { _ = c.server.Serve(l) }() // until count
	return c, nil
}

func (c *collector) address() string { return c.listener.Addr().String() }

func (c *collector) export(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var request []byte
	if err := decode(&request); err != nil {
		return nil, err
	}
	n, err := countFields(request, 1, 2, 2) // resource_spans, scope_spans, spans
	c.spans.Add(int64(n))
	return new([]byte), err // an ExportTraceServiceResponse without fields
}

// count returns how many spans came, and closes the collector. A process that has ended had
// an answer to its last.
func (c *collector) count() int {
	c.server.Stop()
	return int(c.spans.Load())
}

// countFields returns how many messages there are in the last of fields, within those of the
// one before, and so on.
func countFields(message []byte, fields ...protowire.Number) (int, error) {
	total := 0
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return total, protowire.ParseError(n)
		}
		message = message[n:]
		n = protowire.ConsumeFieldValue(number, kind, message)
		if n < 0 {
			return total, protowire.ParseError(n)
		}
		value := message[:n]
		message = message[n:]
		if number != fields[0] {
			continue
		}
		if kind != protowire.BytesType {
			return total, errors.New("not an ExportTraceServiceRequest")
		}
		if len(fields) == 1 {
			total++
			continue
		}
		inner, _ := protowire.ConsumeBytes(value)
		n, err := countFields(inner, fields[1:]...)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// rawCodec leaves messages as they are: a *[]byte.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}
