package load

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseLinesRejectsOtherLines(t *testing.T) {
	for _, line := range []string{
		"call=1\n",
		"call=x outcome=\"ok\" latency=1ms node=none trace=none start=2018-12-24T11:30:15.250Z waited=0s\n",
		"call=1 outcome=\"ok\" latency=1 node=none trace=none start=2018-12-24T11:30:15.250Z waited=0s\n",
		"call=1 outcome=\"ok\" latency=1ms node=none trace=none start=now waited=0s\n",
		"call=1 outcome=\"ok\" latency=1ms node=none trace=none start=2018-12-24T11:30:15.250Z waited=\n",
	} {
		_, err := ParseLines(line)
		require.ErrorContains(t, err, `line "call=`, line)
	}
	none, err := ParseLines("Hello John\nclient: call 1: hystrix: timeout\n")
	require.NoError(t, err)
	require.Empty(t, none)
}
