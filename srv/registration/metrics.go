package registration

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts the attempts to register a node, and reports whether the node is registered, for
// Prometheus. Set Options.Observe and Options.Deregistered to the methods Observe and Deregistered
// of Metrics. Metrics is safe for concurrent use.
type Metrics struct {
	registrations *prometheus.CounterVec
	registered    prometheus.GaugeFunc

	mu    sync.Mutex
	until time.Time // when the registration expires; zero if the node is not registered
	ttl   func() time.Duration
}

// NewMetrics returns the metrics of one server's node: basis_registrations_total and
// basis_registered. ttl returns the TTL of a registration; 0 means that registrations do not
// expire.
func NewMetrics(ttl func() time.Duration) *Metrics {
	m := &Metrics{ttl: ttl}
	m.registrations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "basis_registrations_total",
		Help: "Attempts to register the node, or to renew its registration, by result: ok or error.",
	}, []string{"result"})
	m.registrations.WithLabelValues("ok")
	m.registrations.WithLabelValues("error")
	m.registered = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "basis_registered",
		Help: "1 while the node is registered and the last renewal is younger than the TTL, otherwise 0.",
	}, m.value)
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.registrations.Describe(ch)
	m.registered.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.registrations.Collect(ch)
	m.registered.Collect(ch)
}

// Observe counts an attempt to register the node or to renew its registration. err is nil if the
// attempt succeeded.
func (m *Metrics) Observe(err error) {
	if err != nil {
		m.registrations.WithLabelValues("error").Inc()
		return
	}
	m.registrations.WithLabelValues("ok").Inc()
	ttl := m.ttl()
	if ttl == 0 {
		ttl = forever
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = time.Now().Add(ttl)
}

// forever is longer than any process runs.
const forever = 100 * 365 * 24 * time.Hour

// Deregistered sets basis_registered to 0.
func (m *Metrics) Deregistered() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = time.Time{}
}

func (m *Metrics) value() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().Before(m.until) {
		return 1
	}
	return 0
}
