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
	callers []int     // the numbers of concurrent callers, measured one after another
	nodes   int       // the number of nodes in Consul that its only server acts as; 0: one node
	pprof   [2]string // host:ports where the server and the client serve profiles; empty: no profiles
	shipped bool      // runs as its users build and run it, instead of on equal terms
}

// These variables have numbers of concurrent callers. The variable many is for the peers on equal
// terms with one node: it shows how calls/s grow with the number of callers. The variable one is
// for all other entries.
var (
	many = []int{1, 16, 64, 256}
	one  = []int{16}
)

// peers are the pair and its alternatives.
var peers = []entry{
	{name: "limit", what: "grpc-go alone: one connection, no discovery and no tracing", program: "limit"},
	{name: "basis", what: "the pair: round robin, limiter, breaker and tracer", program: "basis", pair: true, spans: 4},
	{name: "grpc-modern", what: "grpc-go with a resolver for Consul, grpc-go's own round robin, x/time/rate, gobreaker and OpenTelemetry: [dev/modern](../dev/modern)", program: "modern", spans: 4, otlp: true},
	{name: "gokit", what: "go-kit over gRPC, with go-kit's round robin, x/time/rate, and hystrix-go and jaeger-client-go as in the pair", program: "gokit", spans: 4},
	{name: "kratos", what: "kratos v2 over gRPC, with its own selector, limiter on the server, breaker and tracing", program: "kratos", spans: 4, otlp: true},
	{name: "gozero", what: "go-zero's zrpc over gRPC, with its own balancer, breaker, load shedder and tracing", program: "gozero", spans: 4, otlp: true},
	{name: "article", what: "go-micro as in the article: the pair's four wrappers, over go-micro's own RPC", program: "article", spans: 4, loses: true},
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
	mainGroup  = slices.Concat(with(peers, func(e *entry) { e.callers = many }), with(parts, func(e *entry) { e.callers = one }), shipped())
	nodeGroup  = scaled()
	groups     = [][]entry{mainGroup, nodeGroup}
	contenders = slices.Concat(groups...)
)

// with returns a copy of entries, with change applied to each entry.
func with(entries []entry, change func(*entry)) []entry {
	entries = slices.Clone(entries)
	for i := range entries {
		change(&entries[i])
	}
	return entries
}

// shipped returns an entry for each peer that runs as its users build and run it.
func shipped() []entry {
	return with(peers, func(e *entry) { e.name, e.callers, e.shipped = shippedName(e.name), one, true })
}

// shippedName returns the name of a peer as shipped.
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
		all = append(all, with(growing(), func(e *entry) { e.name, e.nodes, e.callers = scaledName(e.name, n), n, one })...)
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
