package cmdline_test

import (
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/router"
	"github.com/stretchr/testify/require"

	_ "github.com/gomicroexample/basis/internal/cmdline"
)

// go-micro's router must get a registry in memory. With an mDNS registry, the router would
// multicast a query at each program's start.
func TestTheDefaultRouterDoesNotUseMDNS(t *testing.T) {
	require.Equal(t, "memory", router.DefaultRouter.Options().Registry.String())
	require.Equal(t, "mdns", registry.DefaultRegistry.String(), "go-micro's default holds for all else")
}
