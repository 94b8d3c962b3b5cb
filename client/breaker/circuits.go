package breaker

import (
	"sync"
	"sync/atomic"

	"github.com/afex/hystrix-go/hystrix"
	metricCollector "github.com/afex/hystrix-go/hystrix/metric_collector"
	"github.com/prometheus/client_golang/prometheus"
)

var stateDesc = prometheus.NewDesc("basis_circuit_state",
	"1 for the state that a circuit is in: closed; open, and calls are refused; or half_open, while the one call that was let through has not ended.",
	[]string{"circuit", "state"}, nil)

// circuits has the circuits of the process, as hystrix has.
var circuits = &collector{
	events: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "basis_circuit_events_total",
		Help: "Calls by what a circuit made of them, as hystrix counts.",
	}, []string{"circuit", "event"}),
	circuits: map[string]*circuit{},
}

// events are what a circuit makes of calls, in the order of circuit.Update.
var events = [...]string{"success", "failure", "timeout", "short_circuit", "rejected", "canceled", "deadline_exceeded"}

// collector has the circuits that hystrix has made since its registration.
type collector struct {
	register   sync.Once
	registered atomic.Bool
	events     *prometheus.CounterVec

	mu       sync.RWMutex
	circuits map[string]*circuit // by name
}

// Collector returns the metrics of all circuits of this process. Before its first call,
// nothing is counted, so call it before the first call of a client.
//
// hystrix itself drops counts when more than 2,000 calls of one circuit end before it has
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

// Collect implements prometheus.Collector. hystrix opens a circuit when somebody asks for
// its state: a call, or Collect.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.RLock()
	all := make([]*circuit, 0, len(c.circuits))
	for _, one := range c.circuits {
		all = append(all, one)
	}
	c.mu.RUnlock() // hystrix may make a circuit below, and then calls newCircuit
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

// newCircuit is called by hystrix when it makes a circuit.
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

// begin tells the circuit that a call was let through. The returned function is to be called
// when the call has ended.
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
	open   atomic.Bool  // as far as the last event or the last look tell
	trials atomic.Int64 // calls in flight that were let through while the circuit was open
}

// Update implements metricCollector.MetricCollector. A success closes a circuit.
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

// Reset implements metricCollector.MetricCollector. hystrix forgets its counts when a circuit
// closes. Prometheus' counters never fall.
func (c *circuit) Reset() {}

// state asks hystrix for the state of the circuit.
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
