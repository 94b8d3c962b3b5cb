package main

import (
	"fmt"
	"slices"
	"strings"
)

// entry is a contender and what the table says of it.
type entry struct {
	name    string
	what    string
	program string    // its folder in contender/
	pair    bool      // its server is srv
	client  []string  // arguments of its client
	server  []string  // arguments of its server
	spans   int       // that each call sends; 0 if nothing is traced
	otlp    bool      // the spans go over OTLP/gRPC instead of UDP
	loses   bool      // it may send fewer: the article's tracer has a queue of 100, and drops what is too much
	callers []int     // how many make calls at once, in turn
	nodes   int       // that its client is to find, all of them the one server; 0: the server alone
	pprof   [2]string // host:ports where server and client serve profiles; empty: nowhere
	shipped bool      // as its users build it, instead of on equal terms
}

// How many callers make calls: of the peers, which are to show growth, and of all others.
var (
	many = []int{1, 16, 64, 256}
	one  = []int{16}
)

// peers are the pair and what could be used in its place.
var peers = []entry{
	{name: "limit", what: "grpc-go alone: one connection, nothing discovered or traced", program: "limit"},
	{name: "basis", what: "this pair: round robin, limiter, breaker and tracer", program: "basis", pair: true, spans: 4},
	{name: "grpc-modern", what: "grpc-go with a resolver for Consul, its own round robin, x/time/rate, gobreaker and OpenTelemetry: [dev/modern](../dev/modern)", program: "modern", spans: 4, otlp: true},
	{name: "gokit", what: "go-kit with the same four, on the same libraries as the pair and over gRPC", program: "gokit", spans: 4},
	{name: "kratos", what: "kratos v2 with its own four, over gRPC", program: "kratos", spans: 4, otlp: true},
	{name: "gozero", what: "go-zero's zrpc with its own balancer, breaker, load shedder and tracing, over gRPC", program: "gozero", spans: 4, otlp: true},
	{name: "article", what: "go-micro as the article wires it: the same four, over its own RPC", program: "article", spans: 4, loses: true},
}

// parts are the pair without its wrappers, with one of them, and with metrics.
var parts = []entry{
	{name: "basis-bare", program: "basis", pair: true, client: wrappers("")},
	{name: "+roundrobin", program: "basis", pair: true, client: wrappers("roundrobin")},
	{name: "+limiter", program: "basis", pair: true, client: wrappers("limiter")},
	{name: "+breaker", program: "basis", pair: true, client: wrappers("breaker")},
	{name: "+opentracing", program: "basis", pair: true, client: wrappers("opentracing"), spans: 4},
	{name: "basis-metrics", program: "basis", pair: true, client: []string{"-metrics"}, server: []string{"--metrics_address=127.0.0.1:0"}, spans: 4},
	{name: "limit-quiet", program: "limit", server: []string{"-quiet"}},
}

// nodeCounts are how many nodes a client goes round, besides the one of peers.
var nodeCounts = []int{10, 50, 1000}

// The entries run in two groups, since thousands of idle connections cost a little.
var (
	mainGroup  = slices.Concat(with(peers, func(e *entry) { e.callers = many }), with(parts, func(e *entry) { e.callers = one }), shipped())
	nodeGroup  = scaled()
	groups     = [][]entry{mainGroup, nodeGroup}
	contenders = slices.Concat(groups...)
)

// with returns entries that change has changed.
func with(entries []entry, change func(*entry)) []entry {
	entries = slices.Clone(entries)
	for i := range entries {
		change(&entries[i])
	}
	return entries
}

// shipped returns the peers as their users build them.
func shipped() []entry {
	return with(peers, func(e *entry) { e.name, e.callers, e.shipped = shippedName(e.name), one, true })
}

// shippedName is the name of one of peers as shipped.
func shippedName(name string) string { return name + "-shipped" }

// growing returns those of peers whose clients call several nodes over one connection each.
func growing() []entry {
	return slices.DeleteFunc(slices.Clone(peers), func(e entry) bool { return e.name == "article" })
}

// scaled returns growing with each number of nodes, those next to each other that are
// compared.
func scaled() []entry {
	var all []entry
	for _, n := range nodeCounts {
		all = append(all, with(growing(), func(e *entry) { e.name, e.nodes, e.callers = scaledName(e.name, n), n, one })...)
	}
	return all
}

// scaledName is the name of one of peers with n nodes.
func scaledName(name string, n int) string {
	if n == 1 {
		return name
	}
	return fmt.Sprintf("%s-nodes-%d", name, n)
}

// programs returns the folders in contender/, each once.
func programs() []string {
	var all []string
	for _, e := range peers {
		all = append(all, e.program)
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// costs are the rows of the table of wrappers.
var costs = []string{"basis-bare", "+roundrobin", "+limiter", "+breaker", "+opentracing", "basis", "basis-metrics"}

func wrappers(names string) []string { return []string{"-wrappers=" + names} }

// service is the name that the server of a contender registers under.
func service(e entry) string { return "bench." + strings.TrimPrefix(e.name, "+") }
