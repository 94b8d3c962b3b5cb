package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/memory"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	registrymemory "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go/testutils"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/client/flags"
	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/client/stack"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/tracer"
)

// The test runs the whole stack in one process, so that the race detector sees all of it. Two
// servers serve real gRPC on loopback. There are eight callers and a mock of the Jaeger agent.
func TestEightCallersTwoServersOneAgent(t *testing.T) {
	const requests = 400
	agent, err := testutils.StartMockAgent()
	require.NoError(t, err)
	defer agent.Close()
	r := registrymemory.NewRegistry()
	for i := range 2 {
		startServer(t, r, fmt.Sprint(i), agent.SpanServerAddr())
	}

	tr, closer, err := tracer.NewTracer(clientName, agent.SpanServerAddr())
	require.NoError(t, err)
	s := flags.Settings{
		HystrixTimeout: time.Minute, HystrixSleepWindow: time.Second,
		HystrixErrorPercent: 10, HystrixMaxConcurrent: 100, HystrixVolume: 1,
	}
	opts := micro.Options{Client: grpcclient.NewClient(
		microclient.Registry(r),
		microclient.Selector(selector.NewSelector(selector.Registry(r))),
		microclient.RequestTimeout(time.Minute),
	)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, o := range stack.Options(ctx, tr, s, nil, nil) {
		o(&opts)
	}
	require.NoError(t, balancer.Find(ctx, opts.Client, serviceName))

	basis := proto.NewBasisService(serviceName, opts.Client)
	// On a busy machine, a call may fail because connecting to its node takes too long. So make
	// calls until both nodes are connected.
	warmUp, connected := 0, map[string]bool{}
	require.Eventually(t, func() bool {
		warmUp++
		r := hello(ctx, tr, basis, "John")
		connected[r.Node] = r.Err == nil
		return len(connected) == 2 && r.Err == nil
	}, time.Minute, time.Millisecond)

	perNode := map[string]int{}
	traces := map[string]bool{}
	load.Run(ctx, load.Plan{Requests: requests, Concurrency: 8}, func(ctx context.Context) load.Result {
		return hello(ctx, tr, basis, "John")
	}, func(c load.Result) {
		require.NoError(t, c.Err)
		require.Equal(t, "Hello John", c.Answer)
		perNode[c.Node]++
		traces[c.Trace] = true
	})
	require.Len(t, perNode, 2)
	for node, n := range perNode {
		require.Equal(t, requests/2, n, node)
	}
	require.Len(t, traces, requests)

	require.NoError(t, closer.Close())
	require.Eventually(t, func() bool { return spans(agent.GetJaegerBatches(), clientName) == 2*(warmUp+requests) },
		time.Minute, 10*time.Millisecond, "two spans per call in the client")
	require.Eventually(t, func() bool { return spans(agent.GetJaegerBatches(), serviceName) == 2*(warmUp+requests) },
		time.Minute, 10*time.Millisecond, "two spans per call in the servers")
}

// startServer runs a server like the program srv, but with registry r.
func startServer(t *testing.T, r registry.Registry, id, agentAddr string) {
	t.Helper()
	tr, closer, err := tracer.NewTracer(serviceName, agentAddr)
	require.NoError(t, err)
	s := grpcserver.NewServer(
		server.Name(serviceName),
		server.Id(id),
		server.Address("127.0.0.1:0"),
		server.Registry(r),
		server.Broker(memory.NewBroker(func(o *broker.Options) { o.Context = context.Background() })),
		server.WrapHandler(ocplugin.NewHandlerWrapper(tr)),
	)
	require.NoError(t, proto.RegisterBasisHandler(s, &handler.Basis{ID: serviceName}))
	require.NoError(t, s.Start())
	t.Cleanup(func() {
		require.NoError(t, s.Stop())
		require.NoError(t, closer.Close())
	})
}

func spans(batches []*jaeger.Batch, service string) int {
	n := 0
	for _, b := range batches {
		if b.Process.ServiceName == service {
			n += len(b.Spans)
		}
	}
	return n
}

// away is a Consul registry without a Consul agent.
type away struct{ registry.Registry }

func (away) String() string { return "consul" }
func (away) Options() registry.Options {
	return registry.Options{Addrs: []string{"127.0.0.1:8500"}}
}

func TestExplainSaysWhatToDo(t *testing.T) {
	require.EqualError(t, explain(registrymemory.NewRegistry(), balancer.ErrNoNode),
		`no node of go.micro.srv.basis is registered in memory; start one with "go run ./srv"`)
	refused := &url.Error{Op: "Get", URL: "http://127.0.0.1:8500/v1/health", Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}}
	require.EqualError(t, explain(away{}, refused),
		`no Consul agent at 127.0.0.1:8500: dial tcp: connection refused; start one with "consul agent -dev", name another with --registry_address, or use --registry=mdns`)
	require.EqualError(t, explain(away{}, errors.New("Unexpected response code: 403 (Permission denied)")),
		"cannot ask consul at 127.0.0.1:8500: Unexpected response code: 403 (Permission denied); see its log, or name another agent with --registry_address")
	require.EqualError(t, explain(away{}, context.DeadlineExceeded),
		"cannot ask consul at 127.0.0.1:8500: no answer in time; see its log, or name another agent with --registry_address")
}
