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
	// pathPacketSize is that of a packet to another machine. Every path of IPv6 carries
	// 1,280 bytes in one piece, 48 of them headers, and so do overlay networks and VPNs.
	// Many of those drop the fragments of a larger packet, without a word.
	pathPacketSize = 1232
	// minPacketSize leaves a span beside what each packet repeats.
	minPacketSize = 512
	// batchOverhead is the size of a packet without its spans and its process.
	// jaeger-client-go counts as much.
	batchOverhead = 70
)

// loopbackPacketSize is that of a packet within this machine: jaeger-client-go's maximum, or
// that of macOS.
var loopbackPacketSize = func() int {
	if runtime.GOOS == "darwin" {
		return 9216
	}
	return utils.UDPPacketMaxLength
}()

var errLarge = errors.New("is larger than a packet that fits the path")

// sender is a transport for UDP, as jaeger-client-go has one. Its limit applies to packets
// with several spans: sender logs a larger span and sends the span in a packet of its own.
// The library's transport drops such a span. It serializes every other span twice, the first time
// only to measure the span. sender is not safe for concurrent use.
type sender struct {
	conn    *connection
	maxSize int // of a packet with several spans
	logger  *logger

	process []byte // serialized, repeated in each packet; nil until the first span
	spans   []byte // serialized, one behind the other, to be sent
	count   int    // of spans

	part, packet *memory // to serialize the process and each span in, and each packet

	batches, tooLarge, unsent int64 // counts that each packet has
}

func newSender(addr string, maxSize int, l *logger) *sender {
	return &sender{conn: connect(addr, l), maxSize: maxSize, logger: l, part: newMemory(), packet: newMemory()}
}

// Append adds a span to the next packet. If the packet is full, it is sent first; Append then
// returns how many spans it had, and the error.
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

// Flush sends the spans that Append has kept. It returns how many there were.
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

// writeBatch writes the same bytes as EmitBatch of jaeger-client-go's agent.AgentClient: a call of
// emitBatch with a jaeger.Batch. Compact Thrift encodes a struct the same way at every place, so
// writeBatch copies the serialized process and spans.
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

// memory is where compact Thrift is written to.
type memory struct {
	buffer   *thrift.TMemoryBuffer
	protocol thrift.TProtocol
}

func newMemory() *memory {
	buffer := thrift.NewTMemoryBuffer()
	return &memory{buffer, thrift.NewTCompactProtocolConf(buffer, nil)}
}

// serialize returns what write writes. The next call overwrites it.
func (m *memory) serialize(write func(context.Context, thrift.TProtocol) error) []byte {
	m.buffer.Reset()
	_ = write(context.Background(), m.protocol) // to memory, which never fails
	return m.buffer.Bytes()
}
