package main

import (
	"fmt"
	"slices"
	"strings"
)

// entry is a contender: a compared program with its settings.
type entry struct {
	name    string
	what    string    // its description in the report
	program string    // its folder in contender/
	pair    bool      // its server is srv
	client  []string  // arguments of its client
	server  []string  // arguments of its server
	spans   int       // spans per call; 0 if nothing is traced
	otlp    bool      // the spans are sent over OTLP/gRPC instead of UDP
	loses   bool      // it may lose spans: the article's tracer drops spans if its queue of 100 is full
	callers []int     // the numbers of concurrent callers; each number has its own measurement
	nodes   int       // the number of nodes in Consul; one server acts as all of them. 0: one node
	pprof   [2]string // host:ports where the server and the client serve profiles; empty: no profiles
	shipped bool      // has its own default settings, instead of equal settings
}

// These variables have numbers of concurrent callers. The variable allCounts is for the peers with
// one node and equal settings: it shows how calls/s change with the number of callers. The variable
// sixteen is for all other entries.
var (
	allCounts = []int{1, 16, 64, 256}
	sixteen   = []int{16}
)

// peers are the pair and its alternatives.
var peers = []entry{
	{name: "limit", what: "grpc-go alone: one connection, no discovery and no tracing", program: "limit"},
	{name: "basis", what: "the pair: round robin, limiter, breaker and tracer", program: "basis", pair: true, spans: 4},
	{name: "grpc-modern", what: "grpc-go with a resolver for Consul, grpc-go's own round robin, x/time/rate, gobreaker and OpenTelemetry: [dev/modern](../dev/modern)", program: "modern", spans: 4, otlp: true},
	{name: "gokit", what: "go-kit over gRPC, with go-kit's round robin, x/time/rate, and hystrix-go and jaeger-client-go as in the pair", program: "gokit", spans: 4},
	{name: "kratos", what: "kratos v2 over gRPC, with its own selector, limiter on the server, breaker and tracing", program: "kratos", spans: 4, otlp: true},
	{name: "gozero", what: "go-zero's zrpc over gRPC, with its own balancer, breaker, load shedder and tracing", program: "gozero", spans: 4, otlp: true},
	{name: "article", what: "go-micro with the article's four wrappers, over go-micro's own RPC", program: "article", spans: 4, loses: true},
}

// parts has the entries that show what a part of a program costs. They are the pair without
// wrappers, the pair with one wrapper, the pair with metrics, and limit without the line that Hello
// logs.
var parts = []entry{
	{name: "basis-bare", program: "basis", pair: true, client: wrappers("")},
	{name: "+roundrobin", program: "basis", pair: true, client: wrappers("roundrobin")},
	{name: "+limiter", program: "basis", pair: true, client: wrappers("limiter")},
	{name: "+breaker", program: "basis", pair: true, client: wrappers("breaker")},
	{name: "+opentracing", program: "basis", pair: true, client: wrappers("opentracing"), spans: 4},
	{name: "basis-metrics", program: "basis", pair: true, client: []string{"-metrics"}, server: []string{"--metrics_address=127.0.0.1:0"}, spans: 4},
	{name: "limit-quiet", program: "limit", server: []string{"-quiet"}},
}

// nodeCounts has the numbers of nodes of the entries in nodeGroup. All other entries have one node.
var nodeCounts = []int{10, 50, 1000}

// The entries run in two groups, one group after the other. The entries in nodeGroup have thousands
// of connections, and even idle connections take some CPU time. So these entries must not run while
// the entries in mainGroup are measured.
var (
	mainGroup  = slices.Concat(changed(peers, func(e *entry) { e.callers = allCounts }), changed(parts, func(e *entry) { e.callers = sixteen }), shipped())
	nodeGroup  = scaled()
	groups     = [][]entry{mainGroup, nodeGroup}
	contenders = slices.Concat(groups...)
)

// changed copies entries, calls the function change for each copied entry, and returns the copies.
func changed(entries []entry, change func(*entry)) []entry {
	entries = slices.Clone(entries)
	for i := range entries {
		change(&entries[i])
	}
	return entries
}

// shipped returns an entry for each peer, in which the peer has its own default settings.
func shipped() []entry {
	return changed(peers, func(e *entry) { e.name, e.callers, e.shipped = shippedName(e.name), sixteen, true })
}

// shippedName returns the name of a peer's entry in the result of shipped.
func shippedName(name string) string { return name + "-shipped" }

// growing returns the peers whose clients have one connection per node: all but article.
func growing() []entry {
	return slices.DeleteFunc(slices.Clone(peers), func(e entry) bool { return e.name == "article" })
}

// scaled returns an entry for each number in nodeCounts and each peer of growing. Entries with the
// same number of nodes follow each other, because the report compares these entries.
func scaled() []entry {
	var all []entry
	for _, n := range nodeCounts {
		all = append(all, changed(growing(), func(e *entry) { e.name, e.nodes, e.callers = scaledName(e.name, n), n, sixteen })...)
	}
	return all
}

// scaledName returns the name of a peer with n nodes.
func scaledName(name string, n int) string {
	if n == 1 {
		return name
	}
	return fmt.Sprintf("%s-nodes-%d", name, n)
}

// programs returns the folder in contender/ of each peer's program, without duplicates.
func programs() []string {
	var all []string
	for _, e := range peers {
		all = append(all, e.program)
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// costs has the names of the entries in the table of wrappers.
var costs = []string{"basis-bare", "+roundrobin", "+limiter", "+breaker", "+opentracing", "basis", "basis-metrics"}

func wrappers(names string) []string { return []string{"-wrappers=" + names} }

// service returns the name that the server of a contender registers under.
func service(e entry) string { return "bench." + strings.TrimPrefix(e.name, "+") }
