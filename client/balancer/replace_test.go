package balancer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A node that fails at everything and then freezes is no better for its new connection.
func TestANodeStaysEjectedWhenItsConnectionIsReplaced(t *testing.T) {
	const service, address = "svc", "127.0.0.1:1"
	b := New(nil)
	defer b.Close()
	old, err := b.take(service, address)
	require.NoError(t, err)
	old.ejectedUntil = time.Now().Add(time.Minute)
	b.mu.Lock()
	b.replace(service, address, old)
	b.mu.Unlock()
	b.release(old)
	c := b.groups[service][address]
	require.NotSame(t, old, c)
	require.Equal(t, ejected, c.rank()&ejected)
}
