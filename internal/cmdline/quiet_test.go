package cmdline_test

import (
	"testing"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/router"
	"github.com/stretchr/testify/require"

	_ "github.com/gomicroexample/basis/internal/cmdline"
)

// No program multicasts at its start because go-micro has a router.
func TestTheDefaultRouterDoesNotUseMDNS(t *testing.T) {
	require.Equal(t, "memory", router.DefaultRouter.Options().Registry.String())
	require.Equal(t, "mdns", registry.DefaultRegistry.String(), "go-micro's default holds for all else")
}
