// Command tools builds the Consul and Jaeger that the demo and the end-to-end
// tests run on, and the tests' gRPC clients, from the modules in this directory:
// "make tools".
//
// With -path it prints where built tools are kept.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gomicroexample/basis/internal/tool"
)

func main() {
	os.Exit(run())
}

func run() int {
	path := flag.Bool("path", false, "print the directory of built tools")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *path {
		dir, err := tool.Dir()
		if err != nil {
			return fail(err)
		}
		fmt.Println(dir)
		return 0
	}
	for _, t := range []tool.Tool{tool.Grpcurl, tool.Ghz, tool.Consul, tool.Jaeger} {
		if _, err := t.Build(ctx, ".", os.Stdout); err != nil {
			return fail(err)
		}
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "tools: %v\n", err)
	return 1
}
