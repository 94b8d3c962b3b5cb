package tracer_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go/testutils"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"
	"go.uber.org/goleak"

	"github.com/gomicroexample/basis/tracer"
)

// agent starts a Jaeger agent in this process. The agent listens on a real UDP socket.
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

func TestSpansAreSentWithoutClosing(t *testing.T) {
	a := agent(t)
	tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
	require.NoError(t, err)
	defer closer.Close()

	start := time.Now()
	tr.StartSpan("span").Finish()
	require.Len(t, batches(t, a)[0].Spans, 1)
	require.Less(t, time.Since(start), 5*time.Second) // about a second on an idle machine
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

		// A second tracer, which samples every span, shows that the agent receives spans.
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
		batches(t, a) // the span is also sent
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
	t.Run("a collector takes them over HTTP", func(t *testing.T) {
		requests := make(chan *http.Request, 1)
		collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			requests <- r
		}))
		defer collector.Close()
		t.Setenv("JAEGER_ENDPOINT", collector.URL+"/api/traces")
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())

		require.Len(t, requests, 1)
		r := <-requests
		require.Equal(t, "POST /api/traces", r.Method+" "+r.URL.Path)
		require.Equal(t, "application/x-thrift", r.Header.Get("Content-Type"))
		require.Empty(t, a.GetJaegerBatches())
	})
}

func TestNewTracerRefuses(t *testing.T) {
	for _, test := range []struct{ name, addr, variable, value, want string }{
		{"no port", "localhost", "", "", `address of Jaeger "localhost"`},
		{"port name", "localhost:jaeger", "", "", `port "jaeger" is not a number from 1 to 65535`},
		{"port out of range", "localhost:70000", "", "", `port "70000" is not a number from 1 to 65535`},
		{"empty", "", "", "", `address of Jaeger ""`},
		{"bare IPv6", "::1:6831", "", "", "too many colons"},
		{"tags", tracer.DefaultAddress, "JAEGER_TAGS", "zone", "check JAEGER_TAGS"},
		{"tags with half a variable", tracer.DefaultAddress, "JAEGER_TAGS", "zone=${ZONE}", "check JAEGER_TAGS"},
		{"queue", tracer.DefaultAddress, "JAEGER_REPORTER_MAX_QUEUE_SIZE", "99999999999", "JAEGER_REPORTER_MAX_QUEUE_SIZE is 99999999999; want 10000000 or less"},
		{"sampler type", tracer.DefaultAddress, "JAEGER_SAMPLER_TYPE", "coin", "coin"},
		{"sampler parameter", tracer.DefaultAddress, "JAEGER_SAMPLER_PARAM", "x", "JAEGER_SAMPLER_PARAM"},
		{"propagation", tracer.DefaultAddress, "JAEGER_PROPAGATION", "jaeger,zipkin", `JAEGER_PROPAGATION is "jaeger,zipkin"; want jaeger, w3c or b3`},
		{"small packets", tracer.DefaultAddress, "JAEGER_REPORTER_MAX_PACKET_SIZE", "511", `JAEGER_REPORTER_MAX_PACKET_SIZE is "511"; want 512 to 65000 bytes`},
		{"large packets", tracer.DefaultAddress, "JAEGER_REPORTER_MAX_PACKET_SIZE", "65001", `JAEGER_REPORTER_MAX_PACKET_SIZE is "65001"`},
		{"packets", tracer.DefaultAddress, "JAEGER_REPORTER_MAX_PACKET_SIZE", "large", `JAEGER_REPORTER_MAX_PACKET_SIZE is "large"`},
		{"collector", tracer.DefaultAddress, "JAEGER_ENDPOINT", "collector:14268/api/traces", "JAEGER_ENDPOINT is not a URL; want http://host:port/path"},
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

// If Jaeger is down, its host refuses packets. If Jaeger's name cannot be resolved, no packet can
// be sent. In both cases, the tracer must not delay the program.
func TestJaegerDown(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := conn.LocalAddr().String()
	require.NoError(t, conn.Close())

	for _, test := range []struct{ name, addr string }{
		{"refuses", refused},
		{"unresolved", "jaeger.example:6831"},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := time.Now()
			tr, closer, err := tracer.NewTracer("svc", test.addr)
			require.NoError(t, err)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 10_000 {
						tr.StartSpan("span").Finish()
					}
				})
			}
			wg.Wait()
			_ = closer.Close()
			// The test takes about two seconds. It would take 20 seconds if the tracer waited for
			// the name server, once at the start and once at the end.
			require.Less(t, time.Since(start), 9*time.Second)
		})
	}
}

// TestMain clears the JAEGER_ variables of the environment, and sets proxies. It also replaces the
// name server with a name server that never responds. Go stops waiting for its response after 10
// seconds.
func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "JAEGER_") {
			os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{
		"HTTP_PROXY": startProxy(), "https_proxy": "http://ann:hunter2@127.0.0.1:1",
		"HTTPS_PROXY": "", "http_proxy": "", "NO_PROXY": "", "no_proxy": "",
	} {
		os.Setenv(name, value)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreCurrent(), // the proxy
		// Lookups of a name: they end when Go stops waiting for the name server.
		goleak.IgnoreAnyFunction("net.(*Resolver).goLookupIPCNAMEOrder.func3.1"),
		goleak.IgnoreAnyFunction("net.(*Resolver).lookupIPAddr.func1"),
		goleak.IgnoreAnyFunction("github.com/gomicroexample/basis/tracer_test.TestMain.func1"),
	)
}
