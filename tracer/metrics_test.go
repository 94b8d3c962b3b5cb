package tracer_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/tracer"
)

// counted waits until basis_spans_total has the wanted values.
func counted(t *testing.T, r prometheus.Gatherer, want string) {
	t.Helper()
	text := "# HELP basis_spans_total Finished spans: sent to Jaeger, failed to be sent or refused, or dropped because the queue was full.\n# TYPE basis_spans_total counter\n" + want
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
		spans := byResult(t, r)
		return spans["failed"] > 0 && spans["dropped"] > 0 && spans["failed"]+spans["dropped"] == 1000
	}, 10*time.Second, 10*time.Millisecond)
}

// byResult returns the values of basis_spans_total by the label result.
func byResult(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	families, err := r.Gather()
	require.NoError(t, err)
	spans := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		spans[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	return spans
}

// If no program listens, a host refuses packets. The write that sends such a packet reports no
// error.
func TestSpansThatWereRefusedAreCounted(t *testing.T) {
	t.Setenv("JAEGER_REPORTER_FLUSH_INTERVAL", "5ms")
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	address := conn.LocalAddr().String()
	require.NoError(t, conn.Close())
	r := prometheus.NewRegistry()
	tr, closer, err := tracer.NewTracer("svc", address, tracer.Metrics(r))
	require.NoError(t, err)
	defer closer.Close()
	finished := 0.0
	// send finishes a span, and waits until the span is counted.
	send := func() map[string]float64 {
		tr.StartSpan("op").Finish()
		finished++
		var spans map[string]float64
		require.Eventually(t, func() bool {
			spans = byResult(t, r)
			return spans["sent"]+spans["failed"] == finished
		}, 10*time.Second, time.Millisecond)
		return spans
	}
	for range 5 {
		send()
	}
	// The host refuses all five packets. The refusal of the last packet is not known yet.
	require.Equal(t, map[string]float64{"sent": 1, "failed": 4, "dropped": 0}, byResult(t, r))

	conn, err = net.ListenPacket("udp", address)
	require.NoError(t, err)
	defer conn.Close()
	for range 3 {
		send()
	}
	require.Equal(t, map[string]float64{"sent": 3, "failed": 5, "dropped": 0}, byResult(t, r))
}

func TestNoRegistererIsNoError(t *testing.T) {
	tr, closer, err := tracer.NewTracer("svc", listen(t).address, tracer.Metrics(nil))
	require.NoError(t, err)
	tr.StartSpan("op").Finish()
	require.NoError(t, closer.Close())
}
