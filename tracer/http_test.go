package tracer_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	jaegerclient "github.com/uber/jaeger-client-go"

	"github.com/gomicroexample/basis/tracer"
)

// proxied counts the requests that reached the proxy in HTTP_PROXY, by URL. All tests share this
// proxy, because net/http reads the variable only once. net/http sends requests to loopback
// addresses without a proxy.
var proxied sync.Map

func count(url string) int64 {
	n, _ := proxied.LoadOrStore(url, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

// startProxy starts a proxy for http:// URLs, and returns the proxy's URL. The proxy responds to
// all requests itself, and rejects requests to denied.example.
func startProxy() string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := proxied.LoadOrStore(r.URL.String(), new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		if r.URL.Hostname() == "denied.example" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, strategyOff)
	}))
	return strings.Replace(s.URL, "http://", "http://ann:hunter2@", 1)
}

const strategyOff = `{"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 0}}`

func TestACollectorBehindAProxy(t *testing.T) {
	for _, test := range []struct {
		endpoint string
		requests int64
		logged   string
	}{
		{"http://collector.example/api/traces", 1, ""},
		{"http://denied.example/api/traces", 1,
			`through the proxy http://127\.0\.0\.1:\d+ of HTTP_PROXY: 403 Forbidden; to connect without it, add denied.example to NO_PROXY`},
		{"https://collector.example/api/traces", 0,
			`through the proxy http://127\.0\.0\.1:1 of https_proxy: .*connection refused; to connect without it, add collector.example to NO_PROXY`},
	} {
		t.Run(test.endpoint, func(t *testing.T) {
			t.Setenv("JAEGER_ENDPOINT", test.endpoint)
			logged := captureLog(t)
			before := count(test.endpoint)
			tr, closer, err := tracer.NewTracer("svc", "127.0.0.1:1")
			require.NoError(t, err)
			tr.StartSpan("span").Finish()
			require.NoError(t, closer.Close())
			require.Equal(t, test.requests, count(test.endpoint)-before)
			require.Regexp(t, test.logged, logged())
			require.Equal(t, test.logged == "", logged() == "", logged())
			require.NotContains(t, logged(), "hunter2")
		})
	}
}

// awaitUnsampled waits until a tracer with a remote sampler uses strategyOff.
func awaitUnsampled(t *testing.T, addr string) {
	t.Helper()
	t.Setenv("JAEGER_SAMPLER_TYPE", "remote")
	t.Setenv("JAEGER_SAMPLER_REFRESH_INTERVAL", "1ms")
	logged := captureLog(t)
	tr, closer, err := tracer.NewTracer("svc", addr)
	require.NoError(t, err)
	defer func() {
		require.NoError(t, closer.Close())
		require.NotContains(t, logged(), "strategy")
	}()
	require.Eventually(t, func() bool {
		span := tr.StartSpan("span")
		defer span.Finish()
		return !span.Context().(jaegerclient.SpanContext).IsSampled()
	}, 10*time.Second, 10*time.Millisecond, "the sampler has no strategy")
}

func TestTheRemoteSampler(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/sampling?service=svc" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, strategyOff)
	})
	s := httptest.NewServer(handler)
	defer s.Close()
	t.Run("at a URL", func(t *testing.T) {
		t.Setenv("JAEGER_SAMPLING_ENDPOINT", s.URL+"/sampling")
		awaitUnsampled(t, "127.0.0.1:1")
	})
	t.Run("at the older variable's address", func(t *testing.T) {
		t.Setenv("JAEGER_SAMPLER_MANAGER_HOST_PORT", s.Listener.Addr().String())
		awaitUnsampled(t, "127.0.0.1:1")
	})
	t.Run("at the older variable's URL", func(t *testing.T) {
		t.Setenv("JAEGER_SAMPLER_MANAGER_HOST_PORT", s.URL+"/sampling")
		awaitUnsampled(t, "127.0.0.1:1")
	})
	t.Run("at a URL, through the proxy", func(t *testing.T) {
		t.Setenv("JAEGER_SAMPLING_ENDPOINT", "http://sampler.example/sampling")
		before := count("http://sampler.example/sampling?service=svc")
		awaitUnsampled(t, "127.0.0.1:1")
		require.Greater(t, count("http://sampler.example/sampling?service=svc"), before)
	})
	t.Run("on the host that spans go to", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:5778")
		if err != nil {
			t.Skip(err)
		}
		local := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
		local.Start()
		defer local.Close()
		t.Setenv("JAEGER_AGENT_HOST", "192.0.2.1") // the library would use this host
		// 0.0.0.0 is this machine, but net/http does not treat it as a loopback address.
		awaitUnsampled(t, "0.0.0.0:1")
		require.Zero(t, count("http://0.0.0.0:5778/sampling?service=svc"))
	})
}

func TestASamplerWithoutAStrategyIsLoggedOnce(t *testing.T) {
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		http.Error(w, "no strategies here", http.StatusNotFound)
	}))
	defer s.Close()
	logged := captureLog(t)
	t.Setenv("JAEGER_SAMPLER_TYPE", "remote")
	t.Setenv("JAEGER_SAMPLER_REFRESH_INTERVAL", "1ms")
	t.Setenv("JAEGER_SAMPLING_ENDPOINT", strings.Replace(s.URL, "http://", "http://ann:hunter2@", 1)+"/sampling")
	_, closer, err := tracer.NewTracer("svc", "127.0.0.1:1")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return requests.Load() >= 5 }, 10*time.Second, time.Millisecond)
	require.NoError(t, closer.Close())
	require.Equal(t, 1, strings.Count(logged(), "\n"), logged())
	require.Regexp(t, `jaeger: failed to fetch sampling strategy: .*/sampling\?service=svc: 404 Not Found: no strategies here \(the sampler goes on as before; not logged again for a minute\)`, logged())
	require.NotContains(t, logged(), "hunter2")
}

// A sampler that waits for its strategy does not delay the end of the program.
func TestASamplerThatWaitsIsClosed(t *testing.T) {
	asked, done := make(chan struct{}, 1), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-done
	}))
	defer s.Close()
	defer close(done)
	logged := captureLog(t)
	t.Setenv("JAEGER_SAMPLER_TYPE", "remote")
	t.Setenv("JAEGER_SAMPLER_REFRESH_INTERVAL", "1ms")
	t.Setenv("JAEGER_SAMPLING_ENDPOINT", s.URL)
	_, closer, err := tracer.NewTracer("svc", "127.0.0.1:1")
	require.NoError(t, err)
	<-asked
	require.NoError(t, closer.Close())
	require.Empty(t, logged())
}
