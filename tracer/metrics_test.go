package tracer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/tracer"
)

// counted waits until the spans by result are as wanted.
func counted(t *testing.T, r prometheus.Gatherer, want string) {
	t.Helper()
	text := "# HELP basis_spans_total Finished spans: sent to Jaeger, failed to be sent, or dropped because the queue was full.\n# TYPE basis_spans_total counter\n" + want
	require.Eventually(t, func() bool {
		return testutil.GatherAndCompare(r, strings.NewReader(text), "basis_spans_total") == nil
	}, 10*time.Second, 10*time.Millisecond, want)
}

func TestSpansThatWereSentAreCounted(t *testing.T) {
	r := prometheus.NewRegistry()
	tr, closer, err := tracer.NewTracer("svc", listen(t).address, tracer.Metrics(r))
	require.NoError(t, err)
	for range 3 {
		tr.StartSpan("op").Finish()
	}
	require.NoError(t, closer.Close())
	counted(t, r, `basis_spans_total{result="dropped"} 0
basis_spans_total{result="failed"} 0
basis_spans_total{result="sent"} 3
`)
}

func TestSpansThatWereLostAreCounted(t *testing.T) {
	t.Setenv("JAEGER_REPORTER_MAX_QUEUE_SIZE", "1")
	r := prometheus.NewRegistry()
	tr, closer, err := tracer.NewTracer("svc", "no.such.host.invalid:6831", tracer.Metrics(r))
	require.NoError(t, err)
	defer closer.Close()
	for range 1000 {
		tr.StartSpan("op").Finish()
	}
	require.Eventually(t, func() bool {
		failed, dropped := 0.0, 0.0
		families, err := r.Gather()
		require.NoError(t, err)
		for _, m := range families[0].GetMetric() {
			switch m.GetLabel()[0].GetValue() {
			case "failed":
				failed = m.GetCounter().GetValue()
			case "dropped":
				dropped = m.GetCounter().GetValue()
			}
		}
		return failed > 0 && dropped > 0 && failed+dropped == 1000
	}, 10*time.Second, 10*time.Millisecond)
}

func TestNoRegistererIsNoError(t *testing.T) {
	tr, closer, err := tracer.NewTracer("svc", listen(t).address, tracer.Metrics(nil))
	require.NoError(t, err)
	tr.StartSpan("op").Finish()
	require.NoError(t, closer.Close())
}
