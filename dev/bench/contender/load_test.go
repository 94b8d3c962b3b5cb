package contender

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	var calls atomic.Int64
	r := Load{Callers: 3, For: 20 * time.Millisecond}.make(context.Background(), func(_ context.Context, name string) (string, error) {
		calls.Add(1)
		<-time.After(time.Millisecond) // the test needs calls that take time
		return "Hello " + name, nil
	})
	require.EqualValues(t, calls.Load(), r.Calls)
	require.GreaterOrEqual(t, r.Calls, 3)
	require.Zero(t, r.Failed)
	require.GreaterOrEqual(t, r.Elapsed, 20*time.Millisecond)
	require.GreaterOrEqual(t, r.P50, time.Millisecond)
	require.GreaterOrEqual(t, r.P99, r.P50)
	require.NotZero(t, r.Mallocs)
}

// Each caller makes Load.Calls calls, even if Load.For is 0.
func TestLoadCalls(t *testing.T) {
	r := Load{Callers: 3, Calls: 5}.make(context.Background(), func(_ context.Context, name string) (string, error) {
		return "Hello " + name, nil
	})
	require.Equal(t, 15, r.Calls)
}

// A call fails if it returns an error or a wrong response.
func TestLoadFailed(t *testing.T) {
	for _, test := range []struct {
		name, msg string
		err       error
		want      string
	}{
		{name: "error", err: errors.New("no such server"), want: "no such server"},
		{name: "answer", msg: "Hello Jim", want: `answer is "Hello Jim"; want "Hello John"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Load{Callers: 2}.make(context.Background(), func(context.Context, string) (string, error) {
				return test.msg, test.err
			})
			require.Zero(t, r.Calls)
			require.Equal(t, 2, r.Failed)
			require.Equal(t, test.want, r.Err)
		})
	}
}
