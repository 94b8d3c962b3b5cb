package tracer_test

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go/testutils"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"

	"github.com/gomicroexample/basis/tracer"
)

// agent is a Jaeger agent in this process. Its address is real UDP.
func agent(t *testing.T) *testutils.MockAgent {
	t.Helper()
	a, err := testutils.StartMockAgent()
	require.NoError(t, err)
	t.Cleanup(a.Close)
	return a
}

// batches waits until the agent has received spans.
func batches(t *testing.T, a *testutils.MockAgent) []*jaeger.Batch {
	t.Helper()
	require.Eventually(t, func() bool { return len(a.GetJaegerBatches()) > 0 },
		10*time.Second, 10*time.Millisecond, "no spans at the agent")
	return a.GetJaegerBatches()
}

func TestSpansReachTheAgentOnClose(t *testing.T) {
	a := agent(t)
	tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
	require.NoError(t, err)

	parent := tr.StartSpan("parent")
	tr.StartSpan("child", opentracing.ChildOf(parent.Context())).Finish()
	parent.Finish()
	require.NoError(t, closer.Close())

	got := batches(t, a)[0]
	require.Equal(t, "svc", got.Process.ServiceName)
	require.Len(t, got.Spans, 2)
	require.Equal(t, got.Spans[1].SpanId, got.Spans[0].ParentSpanId)
}

func TestSpansAreSentWithinASecondOrSo(t *testing.T) {
	a := agent(t)
	tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
	require.NoError(t, err)
	defer closer.Close()

	tr.StartSpan("span").Finish()
	require.Len(t, batches(t, a)[0].Spans, 1)
}

func TestEnvironmentOverrides(t *testing.T) {
	t.Run("sampler", func(t *testing.T) {
		t.Setenv("JAEGER_SAMPLER_TYPE", "const")
		t.Setenv("JAEGER_SAMPLER_PARAM", "0")
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())

		// A second tracer that samples everything shows that the agent listens.
		t.Setenv("JAEGER_SAMPLER_PARAM", "1")
		tr, closer, err = tracer.NewTracer("other", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())
		for _, b := range batches(t, a) {
			require.Equal(t, "other", b.Process.ServiceName)
		}
	})
	t.Run("tags", func(t *testing.T) {
		t.Setenv("JAEGER_TAGS", "zone=a")
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())
		tags := map[string]string{}
		for _, tag := range batches(t, a)[0].Process.Tags {
			tags[tag.Key] = tag.GetVStr()
		}
		require.Equal(t, "a", tags["zone"])
	})
	t.Run("logged spans", func(t *testing.T) {
		t.Setenv("JAEGER_REPORTER_LOG_SPANS", "true")
		var out bytes.Buffer
		log.SetOutput(&out)
		defer log.SetOutput(os.Stderr)
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		span := tr.StartSpan("span")
		span.Finish()
		require.NoError(t, closer.Close())
		require.Contains(t, out.String(), fmt.Sprintf("Reporting span %v", span))
		batches(t, a) // and sent as well
	})
	t.Run("the address stays", func(t *testing.T) {
		t.Setenv("JAEGER_AGENT_HOST", "192.0.2.1")
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())
		batches(t, a)
	})
}

func TestNewTracerRefuses(t *testing.T) {
	for _, test := range []struct{ name, addr, variable, value, want string }{
		{"no port", "localhost", "", "", `address of Jaeger "localhost"`},
		{"port name", "localhost:jaeger", "", "", `port "jaeger" is not a number from 1 to 65535`},
		{"port out of range", "localhost:70000", "", "", `port "70000" is not a number from 1 to 65535`},
		{"empty", "", "", "", `address of Jaeger ""`},
		{"bare IPv6", "::1:6831", "", "", "too many colons"},
		{"tags", tracer.DefaultAddress, "JAEGER_TAGS", "zone", `"zone" is not key=value`},
		{"sampler type", tracer.DefaultAddress, "JAEGER_SAMPLER_TYPE", "coin", "coin"},
		{"sampler parameter", tracer.DefaultAddress, "JAEGER_SAMPLER_PARAM", "x", "JAEGER_SAMPLER_PARAM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.variable != "" {
				t.Setenv(test.variable, test.value)
			}
			_, _, err := tracer.NewTracer("svc", test.addr)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// A Jaeger that is down refuses datagrams, and one that is not in DNS yet
// cannot be sent any. Neither may hold up the spans of callers.
func TestJaegerDown(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := conn.LocalAddr().String()
	require.NoError(t, conn.Close())

	for _, addr := range []string{refused, "jaeger.invalid:6831"} {
		t.Run(addr, func(t *testing.T) {
			tr, closer, err := tracer.NewTracer("svc", addr)
			require.NoError(t, err)
			var wg sync.WaitGroup
			start := time.Now()
			for range 8 {
				wg.Go(func() {
					for range 10_000 {
						tr.StartSpan("span").Finish()
					}
				})
			}
			wg.Wait()
			// 80,000 spans take about 0.2 s; one that waited would show as seconds.
			require.Less(t, time.Since(start), 30*time.Second)
			require.NoError(t, closer.Close())
		})
	}
}
