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

// helloRequest is a request of a server's handler.
type helloRequest struct{ server.Request }

func (helloRequest) Endpoint() string { return "Basis.Hello" }

// What go-plugins' Prometheus wrapper does by itself, and why this package is there: it replaces
// the process's registry, so that what others have registered is not served any more, and it
// knows two outcomes.
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

	// A caller's mistake and a server's failure are both "fail".
	for _, err := range []error{microerrors.BadRequest("id", "no name"), microerrors.InternalServerError("id", "no disk"), errors.New("no")} {
		handle := first(func(context.Context, server.Request, any) error { return err })
		require.Equal(t, err, handle(context.Background(), helloRequest{}, nil))
	}
	require.NoError(t, testutil.GatherAndCompare(promclient.DefaultGatherer, strings.NewReader(`
# HELP micro_request_total How many go-micro requests processed, partitioned by method and status
# TYPE micro_request_total counter
micro_request_total{method="Basis.Hello",micro_name="first",status="fail"} 3
`), "micro_request_total"))

	// A second server in the process takes the first one's metrics away.
	prometheus.NewHandlerWrapper(server.Name("second"))
	count, err = testutil.GatherAndCount(promclient.DefaultGatherer, "micro_request_total")
	require.NoError(t, err)
	require.Zero(t, count, "the first server's metrics are served")
}
