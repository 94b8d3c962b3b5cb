package main

import (
	"fmt"
	"slices"
)

// entry is a contender and what the table says of it.
type entry struct {
	name    string
	what    string
	program string   // its folder in contender/
	pair    bool     // its server is srv
	client  []string // arguments of its client
	server  []string // arguments of its server
	spans   int      // that each call sends; 0 if nothing is traced
	loses   bool     // it may send fewer: the article's tracer has a queue of 100, and drops what is too much
	callers []int    // how many make calls at once, in turn
	nodes   int      // that its client is to find, all of them the one server; 0: the server alone
}

// How many callers make calls, with all contenders and with those that are to
// show growth.
var (
	few  = []int{1, 16, 64}
	many = []int{1, 16, 64, 256}
)

// contenders are what is compared.
var contenders = slices.Concat([]entry{
	{name: "limit", what: "grpc-go alone: one connection, nothing discovered or traced", program: "limit", callers: many},
	{name: "basis", what: "this pair: round robin, limiter, breaker and tracer", program: "basis", pair: true, spans: 4, callers: many},
	{name: "basis-bare", what: "this pair without these four", program: "basis", pair: true, client: wrappers(""), callers: few},
	{name: "article", what: "go-micro as the article wires it: the same four, over its own RPC", program: "article", spans: 4, loses: true, callers: few},
	{name: "gokit", what: "go-kit with the same four, on the same libraries and over gRPC", program: "gokit", spans: 4, callers: few},
	{name: "kratos", what: "kratos v2 with its own four, over gRPC; it is told where its server is instead of discovering it, since its module for Consul could not be fetched", program: "kratos", spans: 4, callers: few},
	{name: "+roundrobin", program: "basis", pair: true, client: wrappers("roundrobin"), callers: few},
	{name: "+limiter", program: "basis", pair: true, client: wrappers("limiter"), callers: few},
	{name: "+breaker", program: "basis", pair: true, client: wrappers("breaker"), callers: few},
	{name: "+opentracing", program: "basis", pair: true, client: wrappers("opentracing"), spans: 4, callers: few},
	{name: "limit-quiet", program: "limit", server: []string{"-quiet"}, callers: []int{16}},
	{name: "limit-50", program: "limit", server: instances(50), callers: []int{16}},
	{name: "basis-1", program: "basis", server: instances(1), spans: 4, callers: []int{16}},
	{name: "basis-10", program: "basis", server: instances(10), spans: 4, callers: []int{16}},
	{name: "basis-50", program: "basis", server: instances(50), spans: 4, callers: []int{16}},
}, scaled())

// nodeCounts are how many nodes a client goes round, and scales what goes round them.
var (
	nodeCounts = []int{1, 10, 50, 1000}
	scales     = []entry{
		{name: "limit", what: "grpc-go alone", program: "limit", pair: true},
		{name: "+roundrobin", what: "the pair's client with the balancer and the round robin alone", program: "basis", pair: true, client: wrappers("roundrobin")},
		{name: "basis", what: "the pair, with all of its wrappers", program: "basis", pair: true, spans: 4},
	}
)

// scaled returns scales with each number of nodes, those next to each other that are
// compared. With one caller, the fewest and the most will do.
func scaled() []entry {
	var all []entry
	for _, n := range nodeCounts {
		for _, e := range scales {
			e.name, e.nodes, e.callers = scaledName(e.name, n), n, []int{16}
			if n == slices.Min(nodeCounts) || n == slices.Max(nodeCounts) {
				e.callers = []int{1, 16}
			}
			all = append(all, e)
		}
	}
	return all
}

// scaledName is the name of one of scales with n nodes.
func scaledName(name string, n int) string { return fmt.Sprintf("%s-nodes-%d", name, n) }

// What the tables list, in this order.
var (
	peers = []string{"limit", "basis", "basis-bare", "article", "gokit", "kratos"}
	costs = []string{"basis-bare", "+roundrobin", "+limiter", "+breaker", "+opentracing", "basis"}
)

func wrappers(names string) []string { return []string{"-wrappers=" + names} }

func instances(n int) []string { return []string{fmt.Sprintf("-instances=%d", n)} }
