package balancer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/connectivity"
)

var (
	nodesDesc = prometheus.NewDesc("basis_nodes",
		"Nodes of a service: known to the client, connected, and ejected for a moment because of server errors.",
		[]string{"service", "state"}, nil)
	retriesDesc = prometheus.NewDesc("basis_retries_total",
		"Attempts after the first one of a call.", []string{"service"}, nil)
	openedDesc = prometheus.NewDesc("basis_connections_opened_total",
		"TCP connections opened to nodes.", []string{"service"}, nil)
)

// Describe implements prometheus.Collector.
func (b *Balancer) Describe(ch chan<- *prometheus.Desc) {
	ch <- nodesDesc
	ch <- retriesDesc
	ch <- openedDesc
}

// Collect implements prometheus.Collector. It collects the metrics of each service that the client
// has looked up or called.
func (b *Balancer) Collect(ch chan<- prometheus.Metric) {
	b.mu.RLock()
	groups := make([]*group, 0, len(b.groups))
	for _, g := range b.groups {
		groups = append(groups, g)
	}
	b.mu.RUnlock()
	for _, g := range groups {
		known, connected, ejected := g.count()
		for state, n := range map[string]int{"known": known, "connected": connected, "ejected": ejected} {
			ch <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(n), g.service, state)
		}
		ch <- prometheus.MustNewConstMetric(retriesDesc, prometheus.CounterValue, float64(g.retries.Load()), g.service)
		ch <- prometheus.MustNewConstMetric(openedDesc, prometheus.CounterValue, float64(g.opened.Load()), g.service)
	}
}

// count returns the numbers of known, connected and ejected nodes. A node that is being probed
// does not count as connected.
func (g *group) count() (known, connected, ejected int) {
	nodes := g.nodes()
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, node := range nodes {
		c := g.conns[node.Address]
		if c == nil {
			continue
		}
		if c.state == connectivity.Ready && !c.probed {
			connected++
		}
		if now.Before(c.ejectedUntil) {
			ejected++
		}
	}
	return len(nodes), connected, ejected
}
