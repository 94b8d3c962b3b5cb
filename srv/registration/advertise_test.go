package registration

import (
	"net"
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/mdns"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	"github.com/stretchr/testify/require"
)

// hasDefaultRoute reports whether this host has a default route. Without a default route, as in
// a sandbox, localIP returns a loopback address.
func hasDefaultRoute() bool {
	for _, addr := range []string{"203.0.113.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", addr); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

func TestLocalIP(t *testing.T) {
	for _, registryAddrs := range [][]string{
		nil,
		{"127.0.0.1:8500"},
		{"[::1]:8500"},
		{"/run/consul.sock"},
		{"no.such.host.invalid:8500", "127.0.0.1:8500"},
	} {
		ip, err := localIP(registryAddrs)
		require.NoError(t, err, registryAddrs)
		host := net.ParseIP(ip)
		require.NotNil(t, host, registryAddrs)
		require.False(t, host.IsUnspecified(), registryAddrs)
		require.False(t, host.IsLinkLocalUnicast(), registryAddrs)
		require.Equal(t, !hasDefaultRoute(), host.IsLoopback(), registryAddrs)
		// Listen fails if ip is not an address of this machine.
		l, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
		require.NoError(t, err, registryAddrs)
		l.Close()
	}
}

// While the names of the agents do not resolve, the route to the registry is unknown.
func TestNothingIsAdvertisedWhileNoAgentResolves(t *testing.T) {
	inner := memory.NewRegistry()
	r := newAdvertisingRegistry(inner, Options{RegistryAddresses: []string{"a.invalid:8500", "b.invalid:8500"}, Server: server.Options{Address: ":0"}})
	node := &registry.Node{Id: "svc-1", Address: "[::]:4711"}
	err := r.Register(&registry.Service{Name: "svc", Nodes: []*registry.Node{node}})
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)
	_, err = inner.GetService("svc")
	require.ErrorIs(t, err, registry.ErrNotFound)
}

// registered registers a node of a server with opts. guess is the address that go-micro chose for
// the node. registered returns the address that the registry received.
func registered(t *testing.T, opts server.Options, guess string) string {
	t.Helper()
	inner := memory.NewRegistry()
	node := &registry.Node{Id: "svc-1", Address: guess}
	service := &registry.Service{Name: "svc", Version: "1", Nodes: []*registry.Node{node}}
	require.NoError(t, newAdvertisingRegistry(inner, Options{RegistryAddresses: []string{"127.0.0.1:8500"}, Server: opts}).Register(service))
	require.Equal(t, guess, node.Address, "Register must not change the caller's node")
	got, err := inner.GetService("svc")
	require.NoError(t, err)
	return got[0].Nodes[0].Address
}

func TestAddressesThatAreNotChosenAreReplaced(t *testing.T) {
	host, err := localIP([]string{"127.0.0.1:8500"})
	require.NoError(t, err)
	want := net.JoinHostPort(host, "4711")
	for _, opts := range []server.Options{
		{Address: ":0"},
		{Address: ":4711"},
		{Address: "0.0.0.0:4711"},
		{Address: "[::]:4711"},
		{Address: "127.0.0.1:0", Advertise: ":4711"},
		{Address: ":0", Advertise: "0.0.0.0:4711"},
	} {
		require.Equal(t, want, registered(t, opts, "[fd00::2]:4711"), "%+v", opts)
	}
}

func TestAddressesThatAreChosenStay(t *testing.T) {
	for _, test := range []struct {
		opts server.Options
		node string
	}{
		{server.Options{Address: "127.0.0.1:0"}, "127.0.0.1:4711"},
		{server.Options{Address: "[fd00::2]:0"}, "[fd00::2]:4711"},
		{server.Options{Address: "localhost:0"}, "localhost:4711"},
		{server.Options{Address: ":0", Advertise: "192.0.2.1:8080"}, "192.0.2.1:8080"},
	} {
		require.Equal(t, test.node, registered(t, test.opts, test.node), "%+v", test.opts)
	}
}

func TestWhatCannotBeRegistered(t *testing.T) {
	service := func(address string) *registry.Service {
		return &registry.Service{Name: "svc", Nodes: []*registry.Node{{Id: "svc-1", Address: address}}}
	}
	r := newAdvertisingRegistry(memory.NewRegistry(), Options{Server: server.Options{Address: ":0"}})
	require.ErrorContains(t, r.Register(service("nonsense")), "address of node svc-1")

	r = newAdvertisingRegistry(mdns.NewRegistry(), Options{Server: server.Options{Address: "[fd00::2]:0"}})
	require.ErrorContains(t, r.Register(service("[fd00::2]:4711")), "IPv4 addresses only")
}
