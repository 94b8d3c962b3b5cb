package breaker

import (
	"sync"
	"sync/atomic"

	"github.com/afex/hystrix-go/hystrix"
	metricCollector "github.com/afex/hystrix-go/hystrix/metric_collector"
	"github.com/prometheus/client_golang/prometheus"
)

var stateDesc = prometheus.NewDesc("basis_circuit_state",
	"1 for the current state of a circuit, and 0 for its other states: closed; open, when calls are rejected; half_open, while the one call that an open circuit let through is in flight.",
	[]string{"circuit", "state"}, nil)

// circuits collects the metrics of the process's circuits. It is a global variable because
// hystrix's circuits are global.
var circuits = &collector{
	events: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "basis_circuit_events_total",
		Help: "Calls, by the event that hystrix counted for each call.",
	}, []string{"circuit", "event"}),
	circuits: map[string]*circuit{},
}

// events are the values of the metric's label "event", in the order of the list in circuit.Update.
var events = [...]string{"success", "failure", "timeout", "short_circuit", "rejected", "canceled", "deadline_exceeded"}

// collector collects the metrics of the circuits that hystrix has created since the collector was
// registered.
type collector struct {
	register   sync.Once
	registered atomic.Bool
	events     *prometheus.CounterVec

	mu       sync.RWMutex
	circuits map[string]*circuit // by name
}

// Collector returns the metrics of this process's circuits. A circuit that hystrix created before
// the first use of Collector has no metrics. So use Collector before a client makes its first call.
//
// Hystrix itself drops counts if more than 2,000 calls of one circuit end before hystrix has
// counted them.
func Collector() prometheus.Collector {
	circuits.register.Do(func() {
		metricCollector.Registry.Register(circuits.newCircuit)
		circuits.registered.Store(true)
	})
	return circuits
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- stateDesc
	c.events.Describe(ch)
}

// Collect implements prometheus.Collector. Hystrix opens a circuit only when the circuit's state is
// read. Both calls and Collect read the state, so Collect may open a circuit.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.RLock()
	all := make([]*circuit, 0, len(c.circuits))
	for _, one := range c.circuits {
		all = append(all, one)
	}
	c.mu.RUnlock() // below, hystrix may create a circuit and call newCircuit, which locks c.mu
	for _, one := range all {
		current := one.state()
		for _, state := range []string{"closed", "half_open", "open"} {
			value := 0.0
			if state == current {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, value, one.name, state)
		}
	}
	c.events.Collect(ch)
}

// newCircuit creates the metrics of one circuit. Hystrix calls newCircuit when it creates a
// circuit.
func (c *collector) newCircuit(name string) metricCollector.MetricCollector {
	one := &circuit{name: name}
	for i, event := range events {
		one.counts[i] = c.events.WithLabelValues(name, event)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.circuits[name] = one
	return one
}

// begin counts a trial call: a call that the named circuit let through while it was open. If the
// circuit is not open, begin counts nothing. begin returns the function end, which must run when
// the call has ended.
func (c *collector) begin(name string) (end func()) {
	c.mu.RLock()
	one := c.circuits[name]
	c.mu.RUnlock()
	if one == nil || !one.open.Load() {
		return func() {}
	}
	one.trials.Add(1)
	return func() { one.trials.Add(-1) }
}

// circuit counts the calls of one circuit of hystrix.
type circuit struct {
	name   string
	counts [len(events)]prometheus.Counter
	open   atomic.Bool  // whether the circuit was open at the last event or the last read of its state
	trials atomic.Int64 // calls in flight that the circuit let through while it was open
}

// Update implements metricCollector.MetricCollector. A success means that hystrix has closed the
// circuit.
func (c *circuit) Update(r metricCollector.MetricResult) {
	if r.ShortCircuits > 0 {
		c.open.Store(true)
	} else if r.Successes > 0 {
		c.open.Store(false)
	}
	for i, n := range [...]float64{
		r.Successes, r.Failures, r.Timeouts, r.ShortCircuits, r.Rejects, r.ContextCanceled, r.ContextDeadlineExceeded,
	} {
		if n > 0 {
			c.counts[i].Add(n)
		}
	}
}

// Reset implements metricCollector.MetricCollector. Hystrix calls Reset when a circuit closes, to
// clear the counts. Reset does nothing, because Prometheus counters must never decrease.
func (c *circuit) Reset() {}

// state returns "closed", "half_open" or "open". It reads from hystrix whether the circuit is open.
// An open circuit with a trial call in flight is half open.
func (c *circuit) state() string {
	cb, _, _ := hystrix.GetCircuit(c.name) // never fails
	open := cb.IsOpen()
	c.open.Store(open)
	switch {
	case !open:
		return "closed"
	case c.trials.Load() > 0:
		return "half_open"
	}
	return "open"
}
