package tracer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/thrift"
	j "github.com/uber/jaeger-client-go/thrift-gen/jaeger"
	"github.com/uber/jaeger-client-go/utils"
)

// Sizes of UDP packets, in bytes.
const (
	// pathPacketSize is the default size limit of a packet to another machine. Every IPv6 path
	// carries packets of 1,280 bytes without fragmentation. 48 of these bytes are headers. Overlay
	// networks and VPNs also carry packets of this size. Many of these networks drop the fragments
	// of larger packets and report no error.
	pathPacketSize = 1232
	// minPacketSize is the minimum of JAEGER_REPORTER_MAX_PACKET_SIZE. It leaves space for a span
	// after the data that each packet repeats.
	minPacketSize = 512
	// batchOverhead is the size of a packet without its spans and its process. The value is
	// jaeger-client-go's.
	batchOverhead = 70
)

// loopbackPacketSize is the default size limit of a packet to the same machine. It is
// jaeger-client-go's maximum, but on macOS it is the system's maximum.
var loopbackPacketSize = func() int {
	if runtime.GOOS == "darwin" {
		return 9216
	}
	return utils.UDPPacketMaxLength
}()

var errLarge = errors.New("is larger than a packet that fits the path")

// sender is a transport over UDP. It replaces jaeger-client-go's transport. Its limit, maxSize,
// applies only to packets with several spans. sender logs a larger span, and sends it in a separate
// packet. The library's transport drops such a span. The library's transport also serializes each
// span twice: first to measure the span, and then to send it. sender is not safe for concurrent
// use.
type sender struct {
	conn    *connection
	maxSize int // of a packet with several spans, in bytes
	logger  *logger

	process []byte // the serialized process, repeated in each packet; nil until the first span
	spans   []byte // the serialized spans of the next packet, concatenated
	count   int    // the number of spans in spans

	part, packet *memory // part serializes the process and each span; packet serializes whole packets

	batches, tooLarge, unsent int64 // total numbers, for the statistics in each packet
}

func newSender(addr string, maxSize int, l *logger) *sender {
	return &sender{conn: connect(addr, l), maxSize: maxSize, logger: l, part: newMemory(), packet: newMemory()}
}

// Append adds a span to the next packet. If the span does not fit, Append first sends the packet
// without the span. In this case, Append returns the number of spans in the sent packet, and an
// error if the packet could not be sent. Append returns 1 and an error if the span itself cannot be
// sent, because Jaeger's name is not resolved yet, or because the span is too large for UDP.
func (s *sender) Append(span *jaeger.Span) (int, error) {
	if s.conn.socket.Load() == nil {
		return 1, errResolving
	}
	if s.process == nil {
		s.process = slices.Clone(s.part.serialize(jaeger.BuildJaegerProcessThrift(span).Write))
	}
	serialized := s.part.serialize(jaeger.BuildJaegerThrift(span).Write)
	switch packet := batchOverhead + len(s.process) + len(serialized); {
	case packet > utils.UDPPacketMaxLength:
		s.tooLarge++
		return 1, fmt.Errorf("it takes a packet of %d bytes; UDP carries %d", packet, utils.UDPPacketMaxLength)
	case packet > s.maxSize:
		s.logger.Error(fmt.Sprintf("span %q %v: %d bytes, of which the process's tags take %d, to %d; see JAEGER_TAGS and JAEGER_REPORTER_MAX_PACKET_SIZE",
			span.OperationName(), errLarge, packet, len(s.process), s.maxSize))
	}
	flushed, err := 0, error(nil)
	if batchOverhead+len(s.process)+len(s.spans)+len(serialized) > s.maxSize {
		flushed, err = s.Flush()
	}
	s.spans = append(s.spans, serialized...)
	s.count++
	return flushed, err
}

// Flush sends the spans that Append has added. It returns the number of these spans.
func (s *sender) Flush() (int, error) {
	n := s.count
	if n == 0 {
		return 0, nil
	}
	s.batches++
	err := s.conn.write(s.packet.serialize(s.writeBatch))
	s.spans, s.count = s.spans[:0], 0
	if err != nil {
		s.unsent += int64(n)
	}
	return n, err
}

// Close closes the connection.
func (s *sender) Close() error { return s.conn.close() }

// writeBatch writes the Thrift message that calls the agent's method emitBatch with a jaeger.Batch.
// It writes the same bytes as EmitBatch of jaeger-client-go's agent.AgentClient. But it does not
// serialize the process and the spans again: it copies their serialized form. This is possible
// because compact Thrift encodes a struct in the same way at every position.
func (s *sender) writeBatch(ctx context.Context, p thrift.TProtocol) error {
	p.WriteMessageBegin(ctx, "emitBatch", thrift.CALL, int32(s.batches))
	p.WriteStructBegin(ctx, "emitBatch_args")
	p.WriteFieldBegin(ctx, "batch", thrift.STRUCT, 1)
	p.WriteStructBegin(ctx, "Batch")
	p.WriteFieldBegin(ctx, "process", thrift.STRUCT, 1)
	p.Transport().Write(s.process)
	p.WriteFieldBegin(ctx, "spans", thrift.LIST, 2)
	p.WriteListBegin(ctx, thrift.STRUCT, s.count)
	p.Transport().Write(s.spans)
	p.WriteFieldBegin(ctx, "seqNo", thrift.I64, 3)
	p.WriteI64(ctx, s.batches)
	p.WriteFieldBegin(ctx, "stats", thrift.STRUCT, 4)
	stats := j.ClientStats{TooLargeDroppedSpans: s.tooLarge, FailedToEmitSpans: s.unsent}
	stats.Write(ctx, p)
	p.WriteFieldStop(ctx)
	p.WriteStructEnd(ctx)
	p.WriteFieldStop(ctx)
	return p.WriteStructEnd(ctx)
}

// memory serializes compact Thrift into a buffer.
type memory struct {
	buffer   *thrift.TMemoryBuffer
	protocol thrift.TProtocol
}

func newMemory() *memory {
	buffer := thrift.NewTMemoryBuffer()
	return &memory{buffer, thrift.NewTCompactProtocolConf(buffer, nil)}
}

// serialize returns the bytes that the function write writes. The next call of serialize overwrites
// these bytes.
func (m *memory) serialize(write func(context.Context, thrift.TProtocol) error) []byte {
	m.buffer.Reset()
	_ = write(context.Background(), m.protocol) // writing to memory never fails
	return m.buffer.Bytes()
}
