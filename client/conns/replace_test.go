package conns

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A node that fails at everything and then hangs is no better for its new connection.
func TestABadSpellOutlastsTheConnection(t *testing.T) {
	const address = "127.0.0.1:1"
	p := New(nil)
	old, err := p.take(address)
	require.NoError(t, err)
	old.spellEnds = time.Now().Add(time.Minute)
	p.replace(address, old)
	p.release(old)
	require.NotSame(t, old, p.conns[address])
	require.Equal(t, badSpell, p.rank(address, nil)&badSpell)
	p.forget(nil)
}
