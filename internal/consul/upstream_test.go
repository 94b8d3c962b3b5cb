package consul

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
	"github.com/stretchr/testify/require"
)

// go-micro's registry returns IPv6 addresses that cannot be dialed. The registry of NewRegistry
// adds the missing brackets.
func TestStockAddressesLackBrackets(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"Node": {}, "Service": {"ID": "a", "Service": "svc", "Address": "fd00::2", "Port": 4711}}]`)
	}))
	defer agent.Close()
	address := func(r registry.Registry) string {
		services, err := r.GetService("svc")
		require.NoError(t, err)
		return services[0].Nodes[0].Address
	}
	addrs := registry.Addrs(agent.Listener.Addr().String())
	require.Equal(t, "fd00::2:4711", address(consul.NewRegistry(addrs)))
	mended := newRegistry(t)
	require.NoError(t, mended.Init(addrs))
	require.Equal(t, "[fd00::2]:4711", address(mended))
}
