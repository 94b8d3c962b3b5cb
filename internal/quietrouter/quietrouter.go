// Package quietrouter prevents go-micro's default router from querying the local network.
//
// go-micro creates the default router when a program starts, even if the program does not use
// the router. The router lists the services of the default registry. To list its services, this
// registry multicasts an mDNS query. In a program that imports quietrouter, the router gets an
// empty registry in memory instead.
//
// Package quietrouter depends on the order in which Go initializes packages: sorted by import
// path, and each package after its imports (https://go.dev/ref/spec#Program_initialization). So
// the import path of quietrouter must sort before github.com/micro/go-micro/router.
package quietrouter

import (
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
)

var stock = registry.DefaultRegistry

func init() { registry.DefaultRegistry = memory.NewRegistry() }

// Restore sets registry.DefaultRegistry back to go-micro's own registry. Call Restore in the
// init function of a package that imports go-micro's router, directly or through other packages.
// Go runs this init function after go-micro has created the router.
func Restore() { registry.DefaultRegistry = stock }
