package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen starts a server on a free port of host. It returns the server, and settings with host and
// this port.
func listen(t *testing.T, host string) (*Server, Settings) {
	t.Helper()
	s := Settings{Address: net.JoinHostPort(host, "0")}
	require.NoError(t, s.Check())
	a, err := Listen(s)
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	_, port, _ := net.SplitHostPort(a.Address())
	return a, Settings{Address: net.JoinHostPort(host, port)}
}

// get requests path from the server a. It returns the status and the body of the response.
func get(t *testing.T, a *Server, path string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	rsp, err := c.Get("http://" + a.Address() + path)
	require.NoError(t, err)
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	return rsp.StatusCode, string(body)
}

func TestMetricsAndProfiles(t *testing.T) {
	a, _ := listen(t, "127.0.0.1")
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "basis_tries_total", Help: "Tries."})
	a.Registerer().MustRegister(c)
	c.Add(3)
	status, body := get(t, a, "/metrics")
	require.Equal(t, http.StatusOK, status)
	for _, line := range []string{"basis_tries_total 3\n", "\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\ngo_build_info{"} {
		require.Contains(t, body, line)
	}
	status, body = get(t, a, "/debug/pprof/goroutine?debug=1")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "goroutine profile: ")
	status, _ = get(t, a, "/debug/pprof/cmdline")
	require.Equal(t, http.StatusOK, status)
	status, _ = get(t, a, "/nothing")
	require.Equal(t, http.StatusNotFound, status)

	a.Handle("/more", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "more") }))
	_, body = get(t, a, "/more")
	require.Equal(t, "more", body)
}

func TestHealth(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "", "0.0.0.0", "::"} {
		a, s := listen(t, host)
		_, err := s.AskHealth()
		require.EqualError(t, err, "not healthy: starting", host)
		a.SetHealth(nil)
		answer, err := s.AskHealth()
		require.NoError(t, err, host)
		require.Equal(t, "ok\n", answer)
		a.SetHealth(errors.New("stopping"))
		status, _ := get(t, a, "/healthz")
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.NoError(t, a.Close())
		_, err = s.AskHealth()
		require.ErrorContains(t, err, "asking for health: ", host)
		require.ErrorContains(t, err, "connection refused", host)
	}
}

func TestHealthIsNotAskedForThroughAProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	a, s := listen(t, "127.0.0.1")
	a.SetHealth(nil)
	_, err := s.AskHealth()
	require.NoError(t, err)
}

func TestWithoutAHostTheAddressIsLoopback(t *testing.T) {
	a, _ := listen(t, "")
	require.True(t, strings.HasPrefix(a.Address(), "127.0.0.1:"), a.Address())
}

func TestAddressesThatAreNone(t *testing.T) {
	for _, addr := range []string{"9464", "localhost", "localhost:http:1", ":-1", ":70000", "[::1"} {
		s := Settings{Address: addr}
		require.ErrorContains(t, s.Check(), "--metrics_address is ", addr)
	}
	s := Settings{HealthCheck: true}
	require.ErrorContains(t, s.Check(), "BASIS_METRICS_ADDRESS")
	require.NoError(t, (&Settings{}).Check())
}

func TestPortThatIsTaken(t *testing.T) {
	_, s := listen(t, "127.0.0.1")
	_, err := Listen(s)
	require.ErrorContains(t, err, "--metrics_address: ")
	require.ErrorContains(t, err, "address already in use")
}

func TestServerThatIsOffDoesNothing(t *testing.T) {
	a, err := Listen(Settings{})
	require.NoError(t, err)
	require.Nil(t, a.Registerer())
	a.Handle("/more", http.NotFoundHandler())
	a.SetHealth(nil)
	require.NoError(t, a.Close())
}

// Close also ends a response that would never end by itself.
func TestCloseEndsStreams(t *testing.T) {
	a, _ := listen(t, "127.0.0.1")
	started, ended := make(chan struct{}), make(chan struct{})
	a.Handle("/stream", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Address()+"/stream", nil)
	require.NoError(t, err)
	failed := make(chan error, 1)
	go func() {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		rsp, err := c.Do(req)
		if err == nil {
			rsp.Body.Close()
		}
		failed <- err
	}()
	<-started
	require.NoError(t, a.Close())
	<-ended
	require.Error(t, <-failed)
}
