package balancer_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-plugins/wrapper/select/roundrobin"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/proto"
)

func TestNodesRetriesAndConnectionsAreCounted(t *testing.T) {
	r := memory.NewRegistry()
	good, bad := start(t, r, "1"), start(t, r, "2")
	b := balancer.New(nil)
	defer b.Close()
	c := grpc.NewClient(client.Registry(r), client.Selector(b.Selector(selector.Registry(r))),
		client.Retries(1), client.Retry(failure.Retry),
		client.Wrap(b.Wrap(roundrobin.NewClientWrapper())), client.WrapCall(b.WrapCall))
	basis := proto.NewBasisService(service, c)

	state := func(text string, names ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			return testutil.CollectAndCompare(b, strings.NewReader(text), names...) == nil
		}, 10*time.Second, time.Millisecond, text)
	}
	const nodes = "# HELP basis_nodes Nodes of a service: known to the client, connected, and ejected for a moment because of server errors.\n# TYPE basis_nodes gauge\n"
	line := func(state, n string) string {
		return `basis_nodes{service="` + service + `",state="` + state + `"} ` + n + "\n"
	}
	for range 4 {
		_, err := basis.Hello(context.Background(), &proto.Request{Name: "John"})
		require.NoError(t, err)
	}
	state(nodes+line("connected", "2")+line("ejected", "0")+line("known", "2"), "basis_nodes")

	// Five consecutive server errors eject a node. Each call that fails at this node is retried.
	err := errors.InternalServerError(service, "oops")
	var oops error = err
	bad.fail.Store(&oops)
	for range 10 {
		_, err := basis.Hello(context.Background(), &proto.Request{Name: "John"})
		require.NoError(t, err)
	}
	state(nodes+line("connected", "2")+line("ejected", "1")+line("known", "2"), "basis_nodes")
	state("# HELP basis_retries_total Attempts after the first one of a call.\n# TYPE basis_retries_total counter\nbasis_retries_total{service=\""+service+"\"} 5\n", "basis_retries_total")
	state("# HELP basis_connections_opened_total TCP connections opened to nodes.\n# TYPE basis_connections_opened_total counter\nbasis_connections_opened_total{service=\""+service+"\"} 2\n", "basis_connections_opened_total")
	require.EqualValues(t, 12, good.answered.Load())
}
