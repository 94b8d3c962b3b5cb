package tracer

import (
	"github.com/prometheus/client_golang/prometheus"
	jaeger "github.com/uber/jaeger-client-go"
)

// Option is an option of NewTracer.
type Option func(*options)

type options struct{ spans *prometheus.CounterVec } // nil if nothing is counted

// Metrics registers basis_spans_total with r: finished spans that were sent, that could not
// be sent or were refused (failed), and that did not fit into the queue (dropped). UDP reports
// a refusal, by a host where no Jaeger listens, only with the next packet; no other loss on the
// way is reported. A nil r registers nothing.
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

// counter is a Prometheus counter as jaeger-client-go wants one.
type counter struct{ prometheus.Counter }

func (c counter) Inc(n int64) { c.Add(float64(n)) }

// deliveries counts the spans of packets that were sent over UDP. The reporter calls Inc
// after each packet, on the goroutine that sent the packet.
type deliveries struct {
	sent, failed prometheus.Counter
	conn         *connection
}

// Inc counts the n spans of a packet: as failed if the packet before was refused, in place of
// that packet's spans, which were counted as sent before the refusal was known.
func (d *deliveries) Inc(n int64) {
	if d.conn.refused {
		d.failed.Add(float64(n))
	} else {
		d.sent.Add(float64(n))
	}
}
