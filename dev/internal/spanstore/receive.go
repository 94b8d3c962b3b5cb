package spanstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"sync"

	"github.com/uber/jaeger-client-go/thrift"
	"github.com/uber/jaeger-client-go/thrift-gen/agent"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"
	"github.com/uber/jaeger-client-go/thrift-gen/zipkincore"
)

// maxDatagram is the size of the largest UDP datagram, in bytes.
const maxDatagram = 64 << 10

// socketBuffer is the size of the socket's receive buffer, in bytes. The system may allow less.
const socketBuffer = 4 << 20

// receive adds the spans that arrive at conn to st, until conn is closed. It drops a datagram
// that is not a batch of spans, and logs the first such datagram.
func receive(conn *net.UDPConn, st *store) {
	_ = conn.SetReadBuffer(socketBuffer) // ignore an error: a smaller buffer loses spans only in a burst
	datagram := make([]byte, maxDatagram)
	var logOnce sync.Once // any local process can send wrong datagrams at a high rate
	for {
		n, from, err := conn.ReadFromUDP(datagram)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			err = process(st, datagram[:n])
		}
		if err != nil {
			logOnce.Do(func() {
				log.Printf("dropped a datagram from %v at %v that is not a batch of spans in compact Thrift: %v; later ones are dropped without a message", from, conn.LocalAddr(), err)
			})
		}
	}
}

// process decodes a datagram, and adds the spans in the datagram to st. A datagram is a Thrift call
// of the agent's method emitBatch. The call is one-way, so process discards the response.
func process(st *store, datagram []byte) error {
	in, out := thrift.NewTMemoryBuffer(), thrift.NewTMemoryBuffer()
	in.Write(datagram)
	processor := agent.NewAgentProcessor(batches{st, len(datagram)})
	_, err := processor.Process(context.Background(), newProtocol(in), newProtocol(out))
	return err
}

// protocol is compact Thrift with a limit for the length of lists. The generated code allocates a
// list before it reads the elements, and a datagram of a few bytes can announce two billion
// elements.
type protocol struct{ *thrift.TCompactProtocol }

func newProtocol(buffer *thrift.TMemoryBuffer) protocol {
	return protocol{thrift.NewTCompactProtocolConf(buffer, &thrift.TConfiguration{MaxMessageSize: maxDatagram})}
}

// ReadListBegin returns the type and the number of a list's elements. It returns an error if the
// list does not fit into a datagram: each element takes at least a byte.
func (p protocol) ReadListBegin(ctx context.Context) (thrift.TType, int, error) {
	elements, n, err := p.TCompactProtocol.ReadListBegin(ctx)
	if err == nil && n > maxDatagram {
		err = fmt.Errorf("a list of %d elements does not fit into a datagram", n)
	}
	return elements, n, err
}

// Skip returns an error. The generated code calls Skip for an unknown field, and jaeger-client-go
// sends no unknown field. The embedded Skip would take minutes for a list that announces two
// billion empty structs, which need no bytes.
func (p protocol) Skip(context.Context, thrift.TType) error { return errors.New("an unknown field") }

// batches implements the Agent of jaeger-client-go's Thrift code for one datagram.
type batches struct {
	*store
	size int // of the datagram, in bytes
}

// EmitZipkinBatch returns an error: jaeger-client-go does not send such batches over UDP.
func (b batches) EmitZipkinBatch(context.Context, []*zipkincore.Span) error {
	return errors.New("spans in Zipkin's format")
}

// EmitBatch adds the spans of batch to the store.
func (b batches) EmitBatch(_ context.Context, batch *jaeger.Batch) error {
	p := &sender{ServiceName: batch.GetProcess().GetServiceName(), Tags: keyValues(batch.GetProcess().GetTags())}
	key, err := json.Marshal(p)
	if err != nil {
		return err
	}
	for _, s := range batch.GetSpans() {
		to := fromThrift(s, p, string(key))
		to.size = b.size / len(batch.GetSpans())
		b.add(to)
	}
	return nil
}

// fromThrift converts s, a span of the process p, into a span of Jaeger's API. key identifies p in
// a trace: spans of equal processes have the same key.
func fromThrift(s *jaeger.Span, p *sender, key string) *span {
	id := traceID{uint64(s.TraceIdHigh), uint64(s.TraceIdLow)}
	to := &span{
		id: id, process: p, processKey: key,
		TraceID: id.String(), SpanID: spanID(s.SpanId), Flags: uint32(s.Flags),
		OperationName: s.OperationName, StartTime: uint64(s.StartTime), Duration: uint64(s.Duration),
		References: []reference{}, Tags: keyValues(s.Tags), Logs: []logLine{},
	}
	// The UI treats the first reference as the parent, so add the parent first. s.References may
	// contain the parent again.
	if s.ParentSpanId != 0 {
		to.References = append(to.References, reference{childOf, to.TraceID, spanID(s.ParentSpanId)})
	}
	for _, r := range s.References {
		ref := reference{r.RefType.String(), traceID{uint64(r.TraceIdHigh), uint64(r.TraceIdLow)}.String(), spanID(r.SpanId)}
		if len(to.References) == 0 || to.References[0] != ref {
			to.References = append(to.References, ref)
		}
	}
	for _, l := range s.Logs {
		to.Logs = append(to.Logs, logLine{uint64(l.Timestamp), keyValues(l.Fields)})
	}
	return to
}

func spanID(id int64) string { return fmt.Sprintf("%016x", uint64(id)) }

func keyValues(tags []*jaeger.Tag) []keyValue {
	all := []keyValue{}
	for _, t := range tags {
		kv := keyValue{t.Key, "string", t.GetVStr()}
		switch t.VType {
		case jaeger.TagType_BOOL:
			kv.Type, kv.Value = "bool", t.GetVBool()
		case jaeger.TagType_LONG:
			kv.Type, kv.Value = "int64", t.GetVLong()
		case jaeger.TagType_BINARY:
			kv.Type, kv.Value = "binary", t.GetVBinary()
		case jaeger.TagType_DOUBLE:
			kv.Type, kv.Value = "float64", t.GetVDouble()
			if f := t.GetVDouble(); math.IsNaN(f) || math.IsInf(f, 0) { // JSON has no such numbers
				kv.Type, kv.Value = "string", fmt.Sprint(f)
			}
		}
		all = append(all, kv)
	}
	return all
}
