package tracer_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go/thrift"
	jaegeragent "github.com/uber/jaeger-client-go/thrift-gen/agent"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"

	"github.com/gomicroexample/basis/tracer"
)

// socket receives the packets of tracers, in place of Jaeger. For a tracer, address looks like an
// address of another machine.
type socket struct {
	net.PacketConn
	address string
}

func listen(t *testing.T) *socket {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &socket{conn, fmt.Sprintf("0.0.0.0:%d", conn.LocalAddr().(*net.UDPAddr).Port)}
}

// receive waits for n spans. It returns their operations, and the size of each packet.
func (s *socket) receive(t *testing.T, n int) (operations []string, sizes []int) {
	t.Helper()
	packet := make([]byte, 1<<16)
	require.NoError(t, s.SetReadDeadline(time.Now().Add(10*time.Second)))
	for len(operations) < n {
		size, _, err := s.ReadFrom(packet)
		require.NoError(t, err, "%d spans of %d", len(operations), n)
		buffer := thrift.NewTMemoryBuffer()
		_, _ = buffer.Write(packet[:size])
		protocol := thrift.NewTCompactProtocolFactoryConf(nil).GetProtocol(buffer)
		var b batch
		_, err = jaegeragent.NewAgentProcessor(&b).Process(context.Background(), protocol, protocol)
		require.NoError(t, err)
		require.Equal(t, "svc", b.Process.ServiceName)
		for _, span := range b.Spans {
			operations = append(operations, span.OperationName)
		}
		sizes = append(sizes, size)
	}
	return operations, sizes
}

// batch is an agent that stores the last batch.
type batch struct {
	jaegeragent.Agent
	*jaeger.Batch
}

func (b *batch) EmitBatch(_ context.Context, got *jaeger.Batch) error {
	b.Batch = got
	return nil
}

// report finishes a span for each operation, and closes the tracer. Each span has the given number
// of tags, of 250 bytes each.
func report(t *testing.T, address string, tags int, operations ...string) {
	t.Helper()
	tr, closer, err := tracer.NewTracer("svc", address)
	require.NoError(t, err)
	for _, operation := range operations {
		span := tr.StartSpan(operation)
		for i := range tags {
			span.SetTag(fmt.Sprint("tag", i), strings.Repeat("x", 250))
		}
		span.Finish()
	}
	require.NoError(t, closer.Close())
}

func numbered(n int) (operations []string) {
	for i := range n {
		operations = append(operations, fmt.Sprint("operation", i))
	}
	return operations
}

func TestPacketsFitThePath(t *testing.T) {
	const spans = 60 // few enough that all packets fit into a socket's buffer
	for _, test := range []struct {
		name, variable string
		host           string
		max, packets   int
	}{
		{"another machine", "", "0.0.0.0", 1232, spans / 2},
		{"this machine", "", "127.0.0.1", 65000, 1},
		{"this machine by name", "", "localhost", 65000, 1},
		{"as a variable says", "800", "127.0.0.1", 800, spans},
		{"as large as a variable says", "9000", "0.0.0.0", 9000, spans / 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("JAEGER_REPORTER_MAX_PACKET_SIZE", test.variable)
			s := listen(t)
			_, port, _ := net.SplitHostPort(s.address)
			report(t, net.JoinHostPort(test.host, port), 1, numbered(spans)...)
			operations, sizes := s.receive(t, spans)
			require.Equal(t, numbered(spans), operations)
			require.LessOrEqual(t, len(sizes), test.packets)
			for _, size := range sizes {
				require.LessOrEqual(t, size, test.max)
			}
		})
	}
}

// Packets of many small spans do not exceed the limit, not even by a few bytes.
func TestPacketsFitEachLimit(t *testing.T) {
	for limit := 600; limit < 700; limit += 7 {
		t.Setenv("JAEGER_REPORTER_MAX_PACKET_SIZE", strconv.Itoa(limit))
		s := listen(t)
		report(t, s.address, 0, numbered(60)...)
		_, sizes := s.receive(t, 60)
		require.LessOrEqual(t, slices.Max(sizes), limit)
	}
}

// A span that is larger than the packet limit is logged, and is sent in a separate packet.
func TestALargeSpanIsSentAlone(t *testing.T) {
	logged := captureLog(t)
	s := listen(t)
	report(t, s.address, 10, "a", "b")
	operations, sizes := s.receive(t, 2)
	require.Equal(t, []string{"a", "b"}, operations)
	require.Len(t, sizes, 2)
	require.Greater(t, sizes[0], 2500)
	require.Equal(t, 1, strings.Count(logged(), `span "a" is larger than a packet that fits the path`), logged())
	require.Equal(t, 1, strings.Count(logged(), "is larger than"), logged())
}

// If the process's tags alone exceed the packet limit, each span is sent in a separate packet.
func TestLargeProcessTagsLoseNoSpans(t *testing.T) {
	logged := captureLog(t)
	var tags []string
	for i := range 10 {
		tags = append(tags, fmt.Sprintf("tag%d=%s", i, strings.Repeat("x", 250)))
	}
	t.Setenv("JAEGER_TAGS", strings.Join(tags, ","))
	s := listen(t)
	report(t, s.address, 0, numbered(20)...)
	operations, _ := s.receive(t, 20)
	require.Equal(t, numbered(20), operations)
	require.Equal(t, 1, strings.Count(logged(), "see JAEGER_TAGS"), logged())
}

// A span that is too large for UDP is dropped. The other spans are sent.
func TestASpanThatUDPCannotCarryIsLogged(t *testing.T) {
	logged := captureLog(t)
	s := listen(t)
	tr, closer, err := tracer.NewTracer("svc", s.address)
	require.NoError(t, err)
	for _, tags := range []int{0, 300, 0} {
		span := tr.StartSpan(fmt.Sprint("with", tags))
		for i := range tags {
			span.SetTag(fmt.Sprint("tag", i), strings.Repeat("x", 250))
		}
		span.Finish()
	}
	require.NoError(t, closer.Close())
	operations, _ := s.receive(t, 2)
	require.Equal(t, []string{"with0", "with0"}, operations)
	require.Regexp(t, `"with300": it takes a packet of \d+ bytes; UDP carries 65000`, logged())
}
