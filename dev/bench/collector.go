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

// collector receives spans over OTLP/gRPC, as an OpenTelemetry collector does. Like the type agent,
// it counts the spans and does not decode them.
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
	go func() { _ = c.server.Serve(l) }() // returns when the method count stops the server
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

// count returns the number of received spans, and closes the collector. It need not wait for more
// spans: a process exits only after the collector has acknowledged its last spans.
func (c *collector) count() int {
	c.server.Stop()
	return int(c.spans.Load())
}

// countFields counts messages that are nested in message. The field numbers in fields are the path
// to the counted messages: fields[0] is a field of message, fields[1] is a field of each message in
// fields[0], and so on.
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

// rawCodec passes messages through without decoding. A message is a *[]byte.
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
