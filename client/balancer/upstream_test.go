package balancer_test

import (
	"context"
	"testing"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	"github.com/stretchr/testify/require"
)

// This test shows a defect of go-plugins' wrapper that the balancer fixes. The wrapper's counter
// starts at 0 in each client. So if many clients make only one call, they all call the same node.
func TestStockRoundsStartAtTheFirstNode(t *testing.T) {
	r := memory.NewRegistry()
	register(t, r, "1", "a", "b")
	counts := map[string]int{}
	for range 40 {
		s := selector.NewSelector(selector.Registry(r))
		c := roundrobin.NewClientWrapper()(grpc.NewClient(
			client.Registry(r),
			client.Selector(s),
			client.WrapCall(func(client.CallFunc) client.CallFunc {
				return func(_ context.Context, node *registry.Node, _ client.Request, _ any, _ client.CallOptions) error {
					counts[node.Id]++
					return nil
				}
			}),
		))
		require.NoError(t, c.Call(context.Background(), c.NewRequest(service, "Basis.Hello", nil), nil))
		require.NoError(t, s.Close())
	}
	require.Equal(t, map[string]int{"a": 40}, counts)
}
