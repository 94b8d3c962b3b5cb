// Command tools builds the Consul and Jaeger that the demo and the end-to-end
// tests run on, and the tests' gRPC clients, from the modules in this directory:
// "make tools".
//
// With -path it prints the directory that it keeps them in.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gomicroexample/basis/dev/internal/binaries"
)

func main() {
	os.Exit(run())
}

func run() int {
	path := flag.Bool("path", false, "print the directory of what was built")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *path {
		dir, err := binaries.Dir()
		if err != nil {
			return fail(err)
		}
		fmt.Println(dir)
		return 0
	}
	for _, b := range []binaries.Binary{binaries.Grpcurl, binaries.Ghz, binaries.Consul, binaries.Jaeger} {
		if _, err := b.Build(ctx, os.Stdout); err != nil {
			return fail(err)
		}
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "tools: %v\n", err)
	return 1
}
