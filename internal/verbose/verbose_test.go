package verbose_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/internal/verbose"
)

func TestParseRefusesWhatReportsDoNotHave(t *testing.T) {
	for _, line := range []string{
		"call=1\n",
		"call=x outcome=\"ok\" latency=1ms node=none trace=none start=2018-12-24T11:30:15.250Z waited=0s\n",
		"call=1 outcome=\"ok\" latency=1 node=none trace=none start=2018-12-24T11:30:15.250Z waited=0s\n",
		"call=1 outcome=\"ok\" latency=1ms node=none trace=none start=now waited=0s\n",
		"call=1 outcome=\"ok\" latency=1ms node=none trace=none start=2018-12-24T11:30:15.250Z waited=\n",
	} {
		_, err := verbose.Parse(line)
		require.ErrorContains(t, err, `line "call=`, line)
	}
	none, err := verbose.Parse("Hello John\nclient: call 1: hystrix: timeout\n")
	require.NoError(t, err)
	require.Empty(t, none)
}
