package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/uber/jaeger-client-go/thrift"
)

// agent receives spans as compact Thrift over UDP, as a Jaeger agent does, and counts them.
type agent struct {
	conn  *net.UDPConn
	spans int
	done  chan struct{} // closed when spans has its final value
}

// maxDatagram is at least the largest size of a UDP datagram, in bytes.
const maxDatagram = 64 << 10

// socketBuffer is the requested size of the socket's receive buffer, in bytes. The system may allow
// less.
const socketBuffer = 8 << 20

// receiver receives the spans of one contender and counts them.
type receiver interface {
	address() string // host:port
	count() int      // returns the number of spans and closes the receiver; the processes that send spans must have exited
}

// newReceiver returns a receiver for the spans of e.
func newReceiver(e entry) (receiver, error) {
	if e.otlp {
		return newCollector()
	}
	return newAgent()
}

func newAgent() (*agent, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listening for spans: %w", err)
	}
	_ = conn.SetReadBuffer(socketBuffer) // not fatal: if too many spans are lost, testbed.end returns an error
	r := &agent{conn: conn, done: make(chan struct{})}
	go r.receive()
	return r, nil
}

func (r *agent) address() string { return r.conn.LocalAddr().String() }

// receive counts spans until reading fails.
func (r *agent) receive() {
	defer close(r.done)
	datagram := make([]byte, maxDatagram)
	for {
		n, err := r.conn.Read(datagram)
		if err != nil {
			return
		}
		spans, err := countSpans(datagram[:n])
		if err != nil {
			log.Printf("a datagram that is no batch of spans: %v", err)
		}
		r.spans += spans
	}
}

// drain is how long the agent continues to read after count is called. At that time, all remaining
// datagrams are already in the socket's buffer.
const drain = 200 * time.Millisecond

// count returns the number of received spans, and closes the agent. The processes that send spans
// must have exited.
func (r *agent) count() int {
	_ = r.conn.SetReadDeadline(time.Now().Add(drain)) // never fails on an open socket
	<-r.done
	r.conn.Close()
	return r.spans
}

// countSpans returns the number of spans in a datagram, without decoding the spans.
//
// A datagram is a Thrift message that calls the agent's method emitBatch. The only argument of
// emitBatch is a Batch: field 1 is the Process, and field 2 is the list of spans. In jaeger-idl,
// agent.thrift defines emitBatch, and jaeger.thrift defines Batch.
func countSpans(datagram []byte) (int, error) {
	ctx := context.Background()
	buffer := thrift.NewTMemoryBuffer()
	buffer.Write(datagram)
	p := thrift.NewTCompactProtocolConf(buffer, nil)
	if _, _, _, err := p.ReadMessageBegin(ctx); err != nil {
		return 0, err
	}
	if _, _, _, err := p.ReadFieldBegin(ctx); err != nil { // the argument
		return 0, err
	}
	if _, err := p.ReadStructBegin(ctx); err != nil { // the Batch
		return 0, err
	}
	for {
		_, fieldType, id, err := p.ReadFieldBegin(ctx)
		if err != nil {
			return 0, err
		}
		if fieldType == thrift.STOP {
			return 0, errors.New("a batch without spans")
		}
		if id == 2 {
			_, n, err := p.ReadListBegin(ctx)
			return n, err
		}
		if err := p.Skip(ctx, fieldType); err != nil {
			return 0, err
		}
	}
}
