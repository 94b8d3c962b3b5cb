package consul

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry/mdns"
	"github.com/micro/go-micro/registry/memory"
	"github.com/stretchr/testify/require"
)

func TestOtherAgent(t *testing.T) {
	// These are Consul's errors for an unknown check. Old versions of Consul return status 500.
	for _, status := range []api.StatusError{
		{Code: http.StatusNotFound, Body: `Unknown check ID "service:svc-1". Ensure that the check ID is passed, not the check name.`},
		{Code: http.StatusInternalServerError, Body: `Unknown check "service:svc-1"`},
	} {
		require.ErrorIs(t, otherAgent(fmt.Errorf("passing the check: %w", status)), errOtherAgent)
	}
	for _, err := range []error{nil, fmt.Errorf("EOF"), api.StatusError{Code: http.StatusInternalServerError, Body: "No cluster leader"}} {
		require.Equal(t, err, otherAgent(err))
	}
}

func TestLeftover(t *testing.T) {
	r, err := NewRegistry()
	require.NoError(t, err)
	require.Contains(t, Leftover(r, "svc-1", 30*time.Second), "until its TTL of 30s is over or, if its token was deleted, for up to 2m5s;")
	require.Contains(t, Leftover(r, "svc-1", 5*time.Minute), "until its TTL of 5m0s is over or, if its token was deleted, for up to 10m35s;")
	require.Equal(t, "svc-1 stays registered until its TTL is over", Leftover(mdns.NewRegistry(), "svc-1", time.Minute))
}

func TestHolderOfOtherRegistries(t *testing.T) {
	address, err := Holder(memory.NewRegistry(), "svc-1")
	require.NoError(t, err)
	require.Empty(t, address)
}
