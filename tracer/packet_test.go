package tracer

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/log"
	"github.com/stretchr/testify/require"
	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/thrift"
	"github.com/uber/jaeger-client-go/thrift-gen/agent"
	j "github.com/uber/jaeger-client-go/thrift-gen/jaeger"
)

// finished returns a finished span with tags, a log and two references.
func finished(tb testing.TB, operation string, tags opentracing.Tags) *jaeger.Span {
	tb.Helper()
	tracer, closer := jaeger.NewTracer("svc", jaeger.NewConstSampler(true), jaeger.NewNullReporter(),
		jaeger.TracerOptions.Gen128Bit(true), jaeger.TracerOptions.Tag("zone", "a"))
	tb.Cleanup(func() { closer.Close() })
	parent, other := tracer.StartSpan("parent").Context(), tracer.StartSpan("other").Context()
	span := tracer.StartSpan(operation, opentracing.ChildOf(parent), opentracing.FollowsFrom(other), tags)
	span.LogFields(log.String("event", "error"), log.Int("attempt", 2))
	span.Finish()
	return span.(*jaeger.Span)
}

// decoded is an agent that stores the last batch.
type decoded struct {
	agent.Agent
	*j.Batch
}

func (d *decoded) EmitBatch(_ context.Context, b *j.Batch) error {
	d.Batch = b
	return nil
}

// A packet has the same bytes as a packet of jaeger-client-go's own client, and decodes to the
// original batch.
func TestPacketsAreThoseOfTheLibrary(t *testing.T) {
	many := opentracing.Tags{}
	for i := range 300 {
		many[fmt.Sprint("tag", i)] = strings.Repeat("x", 250)
	}
	large := finished(t, "large", many)
	spans := []*jaeger.Span{
		finished(t, "plain", nil),
		finished(t, "tagged", opentracing.Tags{
			"text": "é", "empty": "", "yes": true, "no": false, "int": -1, "float": 1.5, "bytes": []byte{0, 1},
		}),
		finished(t, "", opentracing.Tags{"long": strings.Repeat("x", 300)}),
	}
	want := &j.Batch{Process: jaeger.BuildJaegerProcessThrift(spans[0]), SeqNo: new(int64), Stats: &j.ClientStats{}}
	buffer := thrift.NewTMemoryBuffer()
	protocol := thrift.NewTCompactProtocolConf(buffer, nil)
	library := agent.NewAgentClientProtocol(buffer, protocol, protocol)

	conn := listenUDP(t, "127.0.0.1:0")
	s := newSender(conn.LocalAddr().String(), loopbackPacketSize, &logger{})
	defer func() { s.Close() }()
	for packet := range 150 { // sequence numbers above 127 take two bytes
		lost := packet == 1
		if lost {
			require.NoError(t, (*s.conn.socket.Load()).Close())
		}
		want.Spans = nil
		for i := range packet%20 + 1 { // a list length of 15 or more takes an extra byte
			span := spans[i%len(spans)]
			want.Spans = append(want.Spans, jaeger.BuildJaegerThrift(span))
			_, err := s.Append(span)
			require.NoError(t, err)
		}
		_, err := s.Append(large)
		require.ErrorContains(t, err, "UDP carries")
		want.Stats.TooLargeDroppedSpans++
		*want.SeqNo++
		buffer.Reset()
		require.NoError(t, library.EmitBatch(t.Context(), want))

		n, err := s.Flush()
		require.Len(t, want.Spans, n)
		if lost {
			require.ErrorIs(t, err, net.ErrClosed)
			want.Stats.FailedToEmitSpans += int64(n)
			s.conn.close()
			s.conn = connect(conn.LocalAddr().String(), &logger{})
			continue
		}
		require.NoError(t, err)
		require.Equal(t, buffer.Bytes(), []byte(receive(t, conn)))
		var got decoded
		_, err = agent.NewAgentProcessor(&got).Process(t.Context(), protocol, protocol)
		require.NoError(t, err)
		require.Equal(t, want, got.Batch)
	}
}

// BenchmarkSender measures how long it takes to add a span with four tags to a packet. It includes
// the time to send full packets to a socket that nobody reads.
func BenchmarkSender(b *testing.B) {
	for _, size := range []int{loopbackPacketSize, pathPacketSize} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
			require.NoError(b, err)
			defer conn.Close()
			s := newSender(conn.LocalAddr().String(), size, &logger{})
			defer s.Close()
			span := finished(b, "operation", opentracing.Tags{
				"span.kind": "client", "request": `name:"John"`, "response": `msg:"Hello John"`, "attempt": 1,
			})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Append(span); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
