package main

import "fmt"

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
}

// How many callers make calls, with all contenders and with those that are to
// show growth.
var (
	few  = []int{1, 16, 64}
	many = []int{1, 16, 64, 256}
)

// contenders are what is compared.
var contenders = []entry{
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
}

// What the tables list, in this order.
var (
	peers = []string{"limit", "basis", "basis-bare", "article", "gokit", "kratos"}
	costs = []string{"basis-bare", "+roundrobin", "+limiter", "+breaker", "+opentracing", "basis"}
)

func wrappers(names string) []string { return []string{"-wrappers=" + names} }

func instances(n int) []string { return []string{fmt.Sprintf("-instances=%d", n)} }
