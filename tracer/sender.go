package tracer

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/thrift"
	"github.com/uber/jaeger-client-go/thrift-gen/agent"
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
// The library's transport drops such a span. sender is not safe for concurrent use.
type sender struct {
	conn    *connection
	maxSize int // of a packet with several spans
	logger  *logger

	process     *j.Process // repeated in each packet; nil until the first span
	processSize int
	spans       []*j.Span // to be sent, with a total size of spansSize
	spansSize   int

	buffer   *thrift.TMemoryBuffer // to measure in, and the packet
	protocol thrift.TProtocol
	agent    *agent.AgentClient // writes to buffer

	batches, tooLarge, unsent int64 // counts that each packet has
}

func newSender(addr string, maxSize int, l *logger) *sender {
	buffer, protocols := thrift.NewTMemoryBufferLen(maxSize), thrift.NewTCompactProtocolFactoryConf(nil)
	return &sender{
		conn: connect(addr, l), maxSize: maxSize, logger: l,
		buffer: buffer, protocol: protocols.GetProtocol(buffer), agent: agent.NewAgentClientFactory(buffer, protocols),
	}
}

// Append adds a span to the next packet. If the packet is full, it is sent first; Append then
// returns how many spans it had, and the error.
func (s *sender) Append(span *jaeger.Span) (int, error) {
	if s.conn.socket.Load() == nil {
		return 1, errResolving
	}
	if s.process == nil {
		s.process = jaeger.BuildJaegerProcessThrift(span)
		s.processSize = s.sizeOf(s.process)
	}
	built := jaeger.BuildJaegerThrift(span)
	size := s.sizeOf(built)
	switch packet := batchOverhead + s.processSize + size; {
	case packet > utils.UDPPacketMaxLength:
		s.tooLarge++
		return 1, fmt.Errorf("it takes a packet of %d bytes; UDP carries %d", packet, utils.UDPPacketMaxLength)
	case packet > s.maxSize:
		s.logger.Error(fmt.Sprintf("span %q %v: %d bytes, of which the process's tags take %d, to %d; see JAEGER_TAGS and JAEGER_REPORTER_MAX_PACKET_SIZE",
			span.OperationName(), errLarge, packet, s.processSize, s.maxSize))
	}
	flushed, err := 0, error(nil)
	if batchOverhead+s.processSize+s.spansSize+size > s.maxSize {
		flushed, err = s.Flush()
	}
	s.spans = append(s.spans, built)
	s.spansSize += size
	return flushed, err
}

// Flush sends the spans that Append has kept. It returns how many there were.
func (s *sender) Flush() (int, error) {
	n := len(s.spans)
	if n == 0 {
		return 0, nil
	}
	s.batches++
	s.buffer.Reset()
	err := s.agent.EmitBatch(context.Background(), &j.Batch{
		Process: s.process, Spans: s.spans, SeqNo: &s.batches,
		Stats: &j.ClientStats{TooLargeDroppedSpans: s.tooLarge, FailedToEmitSpans: s.unsent},
	})
	if err == nil {
		err = s.conn.write(s.buffer.Bytes())
	}
	clear(s.spans)
	s.spans, s.spansSize = s.spans[:0], 0
	if err != nil {
		s.unsent += int64(n)
	}
	return n, err
}

// Close closes the connection.
func (s *sender) Close() error { return s.conn.close() }

// sizeOf returns how many bytes t takes in a packet.
func (s *sender) sizeOf(t thrift.TStruct) int {
	s.buffer.Reset()
	_ = t.Write(context.Background(), s.protocol) // to memory, which never fails
	return s.buffer.Len()
}
