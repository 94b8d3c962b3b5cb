// Package quietrouter keeps go-micro's default router from querying the local network.
//
// go-micro creates that router when a program starts, whether the program uses it or not.
// The router lists the services of the default registry, which multicasts an mDNS query.
// A program that imports quietrouter gives the router an empty registry instead.
//
// This rests on the order in which Go initializes packages: by import path, each after the
// packages that it imports (https://go.dev/ref/spec#Program_initialization). The import
// path of quietrouter has to sort before github.com/micro/go-micro/router.
package quietrouter

import (
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/memory"
)

var stock = registry.DefaultRegistry

func init() { registry.DefaultRegistry = memory.NewRegistry() }

// Restore sets the default registry back to go-micro's own. Call it in an init of a package
// that imports go-micro's router, if only through other packages.
func Restore() { registry.DefaultRegistry = stock }
