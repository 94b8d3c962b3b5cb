package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/balancer"
	"github.com/gomicroexample/basis/internal/consul"
)

// finding calls find with a wait of 0 and returns the result of find. find queries a fake Consul
// agent. For the duration outage after the first request, the agent responds with an error that has
// the given HTTP status. After this time, the agent lists a node.
func finding(t *testing.T, status int, outage time.Duration) error {
	t.Helper()
	var first sync.Once
	var start time.Time
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first.Do(func() { start = time.Now() })
		if time.Since(start) < outage {
			http.Error(w, "rpc error making call: No cluster leader", status)
			return
		}
		fmt.Fprintf(w, `[{"Service": {"ID": "a", "Service": %q, "Address": "192.0.2.1", "Port": 4711}}]`, serviceName)
	}))
	t.Cleanup(agent.Close)
	r, err := consul.NewRegistry()
	require.NoError(t, err)
	require.NoError(t, r.Init(registry.Addrs(agent.Listener.Addr().String())))
	b := balancer.New(nil)
	t.Cleanup(b.Close)
	s := b.Selector()
	require.NoError(t, s.Init(selector.Registry(r)))
	return find(context.Background(), grpcclient.NewClient(microclient.Registry(r), microclient.Selector(s)), 0)
}

func TestFindWaitsForTheElectionOfALeader(t *testing.T) {
	t.Parallel()
	require.NoError(t, finding(t, http.StatusInternalServerError, time.Second))
}

func TestFindDoesNotWaitLongForALeader(t *testing.T) {
	t.Parallel()
	start := time.Now()
	require.ErrorContains(t, finding(t, http.StatusInternalServerError, time.Hour), "Unexpected response code: 500 (rpc error making call: No cluster leader)")
	require.GreaterOrEqual(t, time.Since(start), electionTime)
}

func TestFindDoesNotWaitAfterADenial(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, finding(t, http.StatusForbidden, time.Second), consul.ErrDenied)
}
