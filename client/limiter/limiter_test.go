package limiter_test

import (
	"context"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/limiter"
)

// Callers that have not called for a while may not make up for it in a burst.
func TestNoSlack(t *testing.T) {
	c := limiter.New(20)(&calling{f: func() {}})
	call := func() { require.NoError(t, c.Call(context.Background(), nil, nil)) }
	call()
	<-time.After(300 * time.Millisecond) // what is tested is what idle time, here for six calls, does
	start := time.Now()
	for range 4 {
		call()
	}
	// The first goes at once, the others at their intervals.
	require.GreaterOrEqual(t, time.Since(start), 3*time.Second/20)
}

func TestZeroIsNoLimit(t *testing.T) {
	n := 0
	c := limiter.New(0)(&calling{f: func() { n++ }})
	for range 1000 {
		require.NoError(t, c.Call(context.Background(), nil, nil))
	}
	require.Equal(t, 1000, n)
}

// calling is a client whose calls only call f.
type calling struct {
	client.Client
	f func()
}

func (c *calling) Call(context.Context, client.Request, any, ...client.CallOption) error {
	c.f()
	return nil
}
