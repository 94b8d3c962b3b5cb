package tracer

import (
	"github.com/prometheus/client_golang/prometheus"
	jaeger "github.com/uber/jaeger-client-go"
)

// Option is an option of NewTracer.
type Option func(*options)

type options struct{ spans *prometheus.CounterVec } // nil if the tracer counts nothing

// Metrics returns an option that registers the counter basis_spans_total with r. If r is nil, the
// option does nothing. The counter has the number of finished spans for each value of the label
// result:
//
//   - sent: the span was sent.
//   - failed: the span could not be sent, or the host refused it because no Jaeger listens there.
//   - dropped: the queue was full.
//
// Over UDP, a refusal is reported only when the next packet is sent. Other losses in the network
// are not reported.
func Metrics(r prometheus.Registerer) Option {
	return func(o *options) {
		if r == nil {
			return
		}
		o.spans = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "basis_spans_total",
			Help: "Finished spans: sent to Jaeger, failed to be sent or refused, or dropped because the queue was full.",
		}, []string{"result"})
		r.MustRegister(o.spans)
		for _, result := range []string{"sent", "failed", "dropped"} {
			o.spans.WithLabelValues(result)
		}
	}
}

// metrics returns the metrics of a reporter that sends with transport.
func (o *options) metrics(transport jaeger.Transport) *jaeger.Metrics {
	m := jaeger.NewNullMetrics()
	if o.spans == nil {
		return m
	}
	sent, failed := o.spans.WithLabelValues("sent"), o.spans.WithLabelValues("failed")
	m.ReporterSuccess = counter{sent}
	m.ReporterFailure = counter{failed}
	m.ReporterDropped = counter{o.spans.WithLabelValues("dropped")}
	if s, ok := transport.(*sender); ok {
		m.ReporterSuccess = &deliveries{sent: sent, failed: failed, conn: s.conn}
	}
	return m
}

// counter adapts a Prometheus counter to the interface of jaeger-client-go.
type counter struct{ prometheus.Counter }

func (c counter) Inc(n int64) { c.Add(float64(n)) }

// deliveries counts the spans of packets that were sent over UDP. The reporter calls Inc after each
// packet, in the goroutine that sent the packet.
type deliveries struct {
	sent, failed prometheus.Counter
	conn         *connection
}

// Inc counts the n spans of a packet as sent. But if the host refused the previous packet, Inc
// counts these n spans as failed: it has already counted the spans of the previous packet as sent,
// and a counter cannot be decreased.
func (d *deliveries) Inc(n int64) {
	if d.conn.refused {
		d.failed.Add(float64(n))
	} else {
		d.sent.Add(float64(n))
	}
}
