package balancer_test

import (
	"context"
	"fmt"
	"log"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"

	"github.com/gomicroexample/basis/client/balancer"
)

// One client calls two services. Each service has two nodes. The two calls to a service go to
// different nodes, and the first node is random.
func ExampleBalancer_Wrap() {
	r := memory.NewRegistry()
	for _, name := range []string{"greeter", "weather"} {
		err := r.Register(&registry.Service{Name: name, Nodes: []*registry.Node{
			{Id: name + "-1", Address: name + "-1.example.com:8080"},
			{Id: name + "-2", Address: name + "-2.example.com:8080"},
		}})
		if err != nil {
			log.Fatal(err)
		}
	}
	b := balancer.New(nil)
	defer b.Close()
	c := b.Wrap(roundrobin.NewClientWrapper())(grpc.NewClient(
		client.Registry(r),
		client.Selector(b.Selector(selector.Registry(r))),
		client.WrapCall(b.WrapCall, noNetwork),
	))
	for _, service := range []string{"greeter", "weather"} {
		for range 2 {
			ctx, last := balancer.RecordAttempt(context.Background())
			req := c.NewRequest(service, "Service.Method", nil, client.WithContentType("application/json"))
			if err := c.Call(ctx, req, nil); err != nil {
				log.Fatal(err)
			}
			fmt.Println(last.Load().Address)
		}
	}
	// Unordered output:
	// greeter-1.example.com:8080
	// greeter-2.example.com:8080
	// weather-1.example.com:8080
	// weather-2.example.com:8080
}

// noNetwork is a call wrapper that replaces the network. Every attempt that the balancer passes to
// noNetwork succeeds.
func noNetwork(client.CallFunc) client.CallFunc {
	return func(context.Context, *registry.Node, client.Request, any, client.CallOptions) error { return nil }
}
