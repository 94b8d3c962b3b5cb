package stack_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	registrymemory "github.com/micro/go-micro/registry/memory"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/stack"
)

// find returns the value of the metric with the given name and labels. For a histogram, it returns
// the number of observed values. If the metric does not exist, find returns -1.
func find(t *testing.T, r prometheus.Gatherer, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if has(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func has(m *dto.Metric, labels map[string]string) bool {
	n := 0
	for _, l := range m.GetLabel() {
		if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
			return false
		} else if ok {
			n++
		}
	}
	return n == len(labels)
}

func TestCallsAreMeasured(t *testing.T) {
	registry := registrymemory.NewRegistry()
	service := "measured-" + rand.Text() // unique, because all tests of the process share hystrix's circuits
	start(t, registry, service, 0)
	r := prometheus.NewRegistry()
	opts := micro.Options{Client: grpcclient.NewClient(
		microclient.Registry(registry), microclient.Selector(selector.NewSelector(selector.Registry(registry))), microclient.Retries(1),
	)}
	for _, o := range stack.Options(context.Background(), opentracing.NoopTracer{}, flags.Settings{
		RateLimit: 1000, HystrixTimeout: time.Minute, HystrixSleepWindow: time.Minute,
		HystrixErrorPercent: 100, HystrixMaxConcurrent: 10, HystrixVolume: 1000,
	}, nil, r) {
		o(&opts)
	}
	c := opts.Client
	defer func() { require.NoError(t, c.Options().Selector.Close()) }()

	for range 3 {
		require.NoError(t, hello(context.Background(), c, service))
	}
	// No server listens at this address: both attempts fail.
	require.Error(t, hello(context.Background(), c, service, microclient.WithAddress("127.0.0.1:1", "127.0.0.1:1")))

	method := map[string]string{"service": service, "endpoint": "Basis.Hello"}
	require.Equal(t, 4.0, find(t, r, "basis_call_duration_seconds", method))
	require.Equal(t, 3.0, find(t, r, "basis_calls_total", map[string]string{"service": service, "endpoint": "Basis.Hello", "outcome": "success"}))
	require.Equal(t, 1.0, find(t, r, "basis_calls_total", map[string]string{"service": service, "outcome": "unreachable"}))
	require.Equal(t, 0.0, find(t, r, "basis_calls_total", map[string]string{"service": service, "outcome": "rejected"}))
	require.Equal(t, 4.0, find(t, r, "basis_limiter_wait_seconds", nil))
	require.Equal(t, 1.0, find(t, r, "basis_nodes", map[string]string{"service": service, "state": "known"}))
	require.Equal(t, 1.0, find(t, r, "basis_nodes", map[string]string{"service": service, "state": "connected"}))
	require.Equal(t, 0.0, find(t, r, "basis_nodes", map[string]string{"service": service, "state": "ejected"}))
	require.Equal(t, 1.0, find(t, r, "basis_connections_opened_total", map[string]string{"service": service}))
	attempts := map[string]string{"grpc_service": service + ".Basis", "grpc_method": "Hello", "grpc_type": "unary", "grpc_code": "OK"}
	require.Equal(t, 3.0, find(t, r, "grpc_client_handled_total", attempts))
	require.Eventually(t, func() bool {
		return find(t, r, "basis_circuit_events_total", map[string]string{"circuit": service + ".Basis.Hello", "event": "success"}) == 3
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, 1.0, find(t, r, "basis_circuit_state", map[string]string{"circuit": service + ".Basis.Hello", "state": "closed"}))
}
