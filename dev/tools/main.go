// Command tools builds the programs that the demo and the end-to-end tests need: Consul, Jaeger,
// three gRPC clients, Prometheus and promtool. The modules of these programs are below this
// directory. "make tools" runs the command.
//
// With -path, the command builds nothing, and prints the directory of the built programs. With -ui,
// it only unpacks the pages of Jaeger's UI, and prints their directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/jaegerui"
)

func main() {
	os.Exit(run())
}

func run() int {
	path := flag.Bool("path", false, "print the directory of what was built")
	onlyUI := flag.Bool("ui", false, "unpack the pages of Jaeger's UI and print their directory")
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
	ui, err := binaries.UI()
	if err != nil {
		return fail(err)
	}
	if *onlyUI {
		fmt.Println(ui)
		return 0
	}
	fmt.Printf("Jaeger's UI %s: %s\n", jaegerui.Version, ui)
	for _, b := range []binaries.Binary{binaries.Grpcurl, binaries.Ghz, binaries.HealthProbe, binaries.Prometheus, binaries.Promtool, binaries.Consul, binaries.Jaeger} {
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
