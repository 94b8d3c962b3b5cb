package tracer

import (
	"github.com/prometheus/client_golang/prometheus"
	jaeger "github.com/uber/jaeger-client-go"
)

// Option is an option of NewTracer.
type Option func(*options)

type options struct{ metrics *jaeger.Metrics }

// Metrics registers basis_spans_total with r: finished spans that were sent, that could not
// be sent (failed), and that did not fit into the queue (dropped). UDP does not tell whether a
// span that was sent has arrived. A nil r registers nothing.
func Metrics(r prometheus.Registerer) Option {
	return func(o *options) {
		if r == nil {
			return
		}
		spans := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "basis_spans_total",
			Help: "Finished spans: sent to Jaeger, failed to be sent, or dropped because the queue was full.",
		}, []string{"result"})
		r.MustRegister(spans)
		o.metrics.ReporterSuccess = counter{spans.WithLabelValues("sent")}
		o.metrics.ReporterFailure = counter{spans.WithLabelValues("failed")}
		o.metrics.ReporterDropped = counter{spans.WithLabelValues("dropped")}
	}
}

// counter is a Prometheus counter as jaeger-client-go wants one.
type counter struct{ prometheus.Counter }

func (c counter) Inc(n int64) { c.Add(float64(n)) }
