package metrics

import (
	"context"
	"errors"
	"strings"
	"testing"

	microerrors "github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/server"
	"github.com/micro/go-plugins/wrapper/monitoring/prometheus"
	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// helloRequest is a server.Request for Hello.
type helloRequest struct{ server.Request }

func (helloRequest) Endpoint() string { return "Basis.Hello" }

// go-plugins' Prometheus wrapper has two defects that this package avoids. The wrapper replaces the
// process's default registry, so metrics that were registered before are no longer served. It also
// knows only two outcomes of a call.
func TestStockPrometheusWrapper(t *testing.T) {
	registerer, gatherer := promclient.DefaultRegisterer, promclient.DefaultGatherer
	t.Cleanup(func() { promclient.DefaultRegisterer, promclient.DefaultGatherer = registerer, gatherer })
	mine := promclient.NewRegistry()
	promclient.DefaultRegisterer, promclient.DefaultGatherer = mine, mine
	promclient.MustRegister(promclient.NewCounter(promclient.CounterOpts{Name: "of_the_application"}))

	first := prometheus.NewHandlerWrapper(server.Name("first"))
	count, err := testutil.GatherAndCount(promclient.DefaultGatherer, "of_the_application")
	require.NoError(t, err)
	require.Zero(t, count, "the application's metric is served")

	// A client error and a server error are both "fail".
	for _, err := range []error{microerrors.BadRequest("id", "no name"), microerrors.InternalServerError("id", "no disk"), errors.New("no")} {
		handle := first(func(context.Context, server.Request, any) error { return err })
		require.Equal(t, err, handle(context.Background(), helloRequest{}, nil))
	}
	require.NoError(t, testutil.GatherAndCompare(promclient.DefaultGatherer, strings.NewReader(`
# HELP micro_request_total How many go-micro requests processed, partitioned by method and status
# TYPE micro_request_total counter
micro_request_total{method="Basis.Hello",micro_name="first",status="fail"} 3
`), "micro_request_total"))

	// A second server in the process removes the first server's metrics.
	prometheus.NewHandlerWrapper(server.Name("second"))
	count, err = testutil.GatherAndCount(promclient.DefaultGatherer, "micro_request_total")
	require.NoError(t, err)
	require.Zero(t, count, "the first server's metrics are served")
}
