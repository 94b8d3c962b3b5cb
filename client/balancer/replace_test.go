package balancer

import (
	"testing"
	"time"

	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"
)

// If a node freezes, the balancer replaces the connection to it. If the node was ejected before, it
// must stay ejected.
func TestANodeStaysEjectedWhenItsConnectionIsReplaced(t *testing.T) {
	const service, address = "svc", "127.0.0.1:1"
	b := New(nil)
	defer b.Close()
	g := b.group(service)
	old, err := g.take(address)
	require.NoError(t, err)
	g.mu.Lock()
	old.ejectedUntil = time.Now().Add(time.Minute)
	g.replace(address, old)
	g.mu.Unlock()
	g.release(old)
	require.NotSame(t, old, g.conns[address])
	other := &registry.Node{Id: "b", Address: "127.0.0.1:2"}
	best, until := g.best([]*registry.Node{{Id: "a", Address: address}, other}, nil)
	require.Equal(t, []*registry.Node{other}, best)
	require.Equal(t, old.ejectedUntil, until)
}
