package nodes_test

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

	"github.com/gomicroexample/basis/client/nodes"
)

// Two calls go to two nodes. To which one the first goes is left to chance.
func ExampleRandomStart() {
	r := memory.NewRegistry()
	err := r.Register(&registry.Service{Name: "greeter", Nodes: []*registry.Node{
		{Id: "greeter-1", Address: "192.0.2.1:8080"},
		{Id: "greeter-2", Address: "192.0.2.2:8080"},
	}})
	if err != nil {
		log.Fatal(err)
	}
	c := grpc.NewClient(
		client.Registry(r),
		client.Selector(selector.NewSelector(selector.Registry(r))),
		client.WrapCall(nodes.Call, offline),
	)
	c = nodes.RandomStart(roundrobin.NewClientWrapper())(c)
	for range 2 {
		ctx, last := nodes.Watch(context.Background())
		if err := c.Call(ctx, c.NewRequest("greeter", "Greeter.Hello", nil), nil); err != nil {
			log.Fatal(err)
		}
		fmt.Println(last.Load().Address)
	}
	// Unordered output:
	// 192.0.2.1:8080
	// 192.0.2.2:8080
}

// offline stands for the network, as the innermost call wrapper.
func offline(client.CallFunc) client.CallFunc {
	return func(context.Context, *registry.Node, client.Request, any, client.CallOptions) error { return nil }
}
