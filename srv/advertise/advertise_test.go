package advertise_test

import (
	"net"
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/srv/advertise"
)

// Without a route to elsewhere, as in a sandbox, all that is left is loopback.
func hasDefaultRoute() bool {
	for _, addr := range []string{"203.0.113.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", addr); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

func TestHost(t *testing.T) {
	for _, registryAddr := range []string{"127.0.0.1:8500", "[::1]:8500", "", "no.such.host.invalid:8500"} {
		host := net.ParseIP(advertise.Host(registryAddr))
		require.NotNil(t, host, registryAddr)
		require.False(t, host.IsUnspecified(), registryAddr)
		require.False(t, host.IsLinkLocalUnicast(), registryAddr)
		require.Equal(t, !hasDefaultRoute(), host.IsLoopback(), registryAddr)
		// It is an address of this machine.
		l, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
		require.NoError(t, err, registryAddr)
		l.Close()
	}
}

func TestChosen(t *testing.T) {
	for _, test := range []struct {
		address, advertise string
		want               bool
	}{
		{":0", "", false},
		{":8080", "", false},
		{"0.0.0.0:8080", "", false},
		{"[::]:8080", "", false},
		{"127.0.0.1:0", "", true},
		{"[fd00::2]:0", "", true},
		{"localhost:0", "", true},
		{":0", "192.0.2.1:8080", true},
	} {
		got := advertise.Chosen(server.Options{Address: test.address, Advertise: test.advertise})
		require.Equal(t, test.want, got, "%+v", test)
	}
}

func TestRegisterMovesTheNodeAndLeavesTheCallersAlone(t *testing.T) {
	inner := memory.NewRegistry()
	r := advertise.Registry(inner, "127.0.0.1:8500")
	node := &registry.Node{Id: "svc-1", Address: "[fd00::2]:4711"}
	service := &registry.Service{Name: "svc", Version: "1", Nodes: []*registry.Node{node}}
	require.NoError(t, r.Register(service))
	require.Equal(t, "[fd00::2]:4711", node.Address)

	got, err := inner.GetService("svc")
	require.NoError(t, err)
	require.Equal(t, net.JoinHostPort(advertise.Host("127.0.0.1:8500"), "4711"), got[0].Nodes[0].Address)

	require.NoError(t, r.Deregister(service))
	_, err = inner.GetService("svc")
	require.Error(t, err)

	node.Address = "nonsense"
	require.ErrorContains(t, r.Register(service), "address of node svc-1")
}
