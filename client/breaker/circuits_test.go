package breaker_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/errors"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/gomicroexample/basis/client/breaker"
)

// samples returns the values of a metric for one circuit. Each key is a value of the metric's other
// label, which is state or event.
func samples(t *testing.T, metric, circuit string) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(breaker.Collector())
	families, err := r.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["circuit"] == circuit {
				values[labels["state"]+labels["event"]] = value(m)
			}
		}
	}
	return values
}

func value(m *dto.Metric) float64 { return m.GetGauge().GetValue() + m.GetCounter().GetValue() }

// becomes waits until the metric of the circuit is 1 for the given state and 0 for the other
// states.
func becomes(t *testing.T, circuit, state string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got := samples(t, "basis_circuit_state", circuit)
		return got[state] == 1 && got["closed"]+got["half_open"]+got["open"] == 1
	}, 10*time.Second, time.Millisecond, "the circuit does not become %s", state)
}

func TestStatesOfACircuit(t *testing.T) {
	breaker.Collector()
	circuit := t.Name() + ".Basis.Hello"
	cfg := touchy
	cfg.SleepWindow = 100
	cfg.RequestVolumeThreshold = 2 // see the function counted
	var (
		refused atomic.Int64
		mu      sync.Mutex
		failing = true
		pause   = make(chan struct{})
	)
	close(pause)
	protected := protected(t, cfg, func(context.Context) error {
		mu.Lock()
		wait, fail := pause, failing
		mu.Unlock()
		<-wait
		if fail {
			return errors.InternalServerError("go.micro.srv.basis", "oops")
		}
		return nil
	})
	call := func() error {
		err := protected()
		if err == hystrix.ErrCircuitOpen {
			refused.Add(1)
		}
		return err
	}
	// counted waits until hystrix has counted the rejected calls, except perhaps the last one.
	// Hystrix counts a rejected call as a failure. If hystrix counts rejected calls after the
	// circuit has closed, the circuit opens again.
	before := samples(t, "basis_circuit_events_total", circuit)["short_circuit"]
	counted := func() {
		require.Eventually(t, func() bool {
			return samples(t, "basis_circuit_events_total", circuit)["short_circuit"]-before == float64(refused.Load())
		}, 10*time.Second, time.Millisecond)
	}
	set := func(fail bool, wait chan struct{}) {
		mu.Lock()
		defer mu.Unlock()
		failing, pause = fail, wait
	}
	openCircuit(t, call)
	becomes(t, circuit, "open")

	// After each sleep window, the circuit lets one call through. In the first round of this loop,
	// the call fails. In the second round, the call succeeds.
	for _, fail := range []bool{true, false} {
		wait, ended := make(chan struct{}), make(chan error, 1)
		set(fail, wait)
		go func() {
			every := time.NewTicker(time.Millisecond)
			defer every.Stop()
			for range every.C {
				if err := call(); err != hystrix.ErrCircuitOpen {
					ended <- err
					return
				}
			}
		}()
		becomes(t, circuit, "half_open")
		counted()
		close(wait)
		if err := <-ended; fail {
			require.Error(t, err)
			becomes(t, circuit, "open")
		} else {
			require.NoError(t, err)
			becomes(t, circuit, "closed")
		}
	}
}

func TestEventsOfACircuitAreCounted(t *testing.T) {
	breaker.Collector()
	circuit := t.Name() + ".Basis.Hello"
	var err error
	call := protected(t, touchy, func(context.Context) error { return err })
	before := samples(t, "basis_circuit_events_total", circuit)
	for range 3 {
		require.NoError(t, call())
	}
	err = errors.InternalServerError("go.micro.srv.basis", "oops")
	openCircuit(t, call)
	require.Eventually(t, func() bool {
		got := samples(t, "basis_circuit_events_total", circuit)
		return got["success"]-before["success"] == 3 && got["failure"] > before["failure"] && got["short_circuit"] > before["short_circuit"]
	}, 10*time.Second, time.Millisecond)
}

// Hystrix clears its counts when a circuit closes, but Prometheus counters must not decrease.
func TestCountsSurviveTheEndOfAnOpenCircuit(t *testing.T) {
	breaker.Collector()
	circuit := t.Name() + ".Basis.Hello"
	cfg := touchy
	cfg.SleepWindow = 1
	var (
		mu  sync.Mutex
		err = errors.InternalServerError("go.micro.srv.basis", "oops")
	)
	call := protected(t, cfg, func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return err
	})
	openCircuit(t, call)
	mu.Lock()
	err = nil
	mu.Unlock()
	// If hystrix counts a rejected call after the circuit has closed, the circuit may open again.
	require.Eventually(t, func() bool {
		return call() == nil && samples(t, "basis_circuit_state", circuit)["closed"] == 1
	}, 10*time.Second, time.Millisecond)
	require.Positive(t, samples(t, "basis_circuit_events_total", circuit)["failure"])
}

// Many dashboards read the stream at the same time, while calls continue. After all dashboards have
// disconnected, no goroutine collects events.
func TestStreamHasAllCircuitsForEachReader(t *testing.T) {
	call := protected(t, touchy, func(context.Context) error { return nil })
	require.NoError(t, call())
	s := httptest.NewServer(http.HandlerFunc(breaker.Stream))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var readers errgroup.Group
	for range 100 {
		readers.Go(func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
			if err != nil {
				return err
			}
			rsp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer rsp.Body.Close()
			if got := rsp.Header.Get("Content-Type"); got != "text/event-stream" {
				return fmt.Errorf("the content's type is %q", got)
			}
			events := 0
			for lines := bufio.NewScanner(rsp.Body); events < 3; {
				if !lines.Scan() {
					return fmt.Errorf("after %d events: %v", events, lines.Err())
				}
				if strings.Contains(lines.Text(), `"type":"HystrixCommand","name":"`+t.Name()+".Basis.Hello") {
					events++
					_ = call()
				}
			}
			return nil
		})
	}
	require.NoError(t, readers.Wait())
	require.Eventually(t, func() bool {
		var goroutines strings.Builder
		return pprof.Lookup("goroutine").WriteTo(&goroutines, 1) == nil && !strings.Contains(goroutines.String(), "StreamHandler")
	}, 10*time.Second, 10*time.Millisecond)
}
