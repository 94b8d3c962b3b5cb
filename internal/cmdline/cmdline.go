// Package cmdline reads a go-micro service's command line as users expect of
// a command: bad usage is one line on stderr and exit status 2, --help shows
// the defaults that hold, and no flag undoes what the service was built with.
package cmdline

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/micro/cli"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/config/cmd"
)

// exitUsage is the status of a command that was called wrongly.
const exitUsage = 2

// help is go-micro's page without the commands and arguments that a service
// does not have.
const help = `{{.Name}}: {{.Usage}}

Usage: {{.Name}} [options]

Options (each can also be set by the variable in brackets):
   {{range $i, $flag := .VisibleFlags}}{{if $i}}
   {{end}}{{$flag}}{{end}}
`

// Parse calls service.Init, which reads the flags of go-micro and those given
// with micro.Flags from os.Args and the environment. It then asks check
// whether their values make sense. Bad usage ends the process with status 2,
// and --help with status 0.
//
// What service was built with by micro.Name, micro.RegisterTTL,
// micro.RegisterInterval, micro.Registry and micro.Broker, and how often its
// client tries again, holds unless a flag says otherwise, also where --server or --client put another implementation
// in place of the one that was given these options.
//
// Wrappers are different: --client replaces a client with all its wrappers, so
// they belong in a second service.Init, after Parse.
func Parse(service micro.Service, check func() error) {
	app := service.Options().Cmd.App()
	cli.AppHelpTemplate = help
	own := app.Flags[len(cmd.DefaultFlags):]
	app.Flags = slices.Concat(own, withDefaults(cmd.DefaultFlags, service))

	fail := func(err error) error {
		fmt.Fprintf(os.Stderr, "%s: %v (see \"%[1]s --help\")\n", app.Name, err)
		os.Exit(exitUsage)
		return nil
	}
	// go-micro prints its help page and exits with 0 when a flag is wrong.
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return fail(err) }
	// The only error left to RunAndExitOnError is a variable that cannot be parsed.
	cli.OsExiter = func(int) { os.Exit(exitUsage) }
	apply := app.Before
	app.Before = func(ctx *cli.Context) error {
		if err := checkMicro(ctx); err != nil {
			return fail(err)
		}
		if err := apply(ctx); err != nil {
			return fail(err)
		}
		if err := check(); err != nil {
			return fail(err)
		}
		return nil
	}

	service.Init()
	opts := service.Options()
	service.Init(micro.Registry(opts.Registry), micro.Broker(opts.Broker))
}

// withDefaults returns flags with what service was built with as their
// defaults.
func withDefaults(flags []cli.Flag, service micro.Service) []cli.Flag {
	server := service.Server().Options()
	texts := map[string]string{
		"client":      service.Client().String(),
		"server":      service.Server().String(),
		"server_name": server.Name,
		"registry":    service.Options().Registry.String(),
		"broker":      service.Options().Broker.String(),
	}
	numbers := map[string]int{
		"client_retries":    service.Client().Options().CallOptions.Retries,
		"register_ttl":      int(server.RegisterTTL.Seconds()),
		"register_interval": int(server.RegisterInterval.Seconds()),
	}
	flags = slices.Clone(flags)
	for i, f := range flags {
		switch f := f.(type) {
		case cli.StringFlag:
			if v, ok := texts[f.Name]; ok {
				f.Value = v
				flags[i] = f
			}
		case cli.IntFlag:
			if v, ok := numbers[f.Name]; ok {
				f.Value = v
				flags[i] = f
			}
		}
	}
	return flags
}

// checkMicro refuses what go-micro would take without a word and then not do.
func checkMicro(ctx *cli.Context) error {
	if ctx.Args().Present() {
		return fmt.Errorf("unexpected argument %q", ctx.Args().First())
	}
	if name := ctx.String("server"); cmd.DefaultServers[name] == nil {
		return fmt.Errorf("unknown server %q; one of %s", name, names(cmd.DefaultServers))
	}
	if name := ctx.String("client"); cmd.DefaultClients[name] == nil {
		return fmt.Errorf("unknown client %q; one of %s", name, names(cmd.DefaultClients))
	}
	if name := ctx.String("registry"); cmd.DefaultRegistries[name] == nil {
		return fmt.Errorf("unknown registry %q; one of %s", name, names(cmd.DefaultRegistries))
	}
	if addr := ctx.String("server_advertise"); addr != "" {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("--server_advertise: %w; want host:port", err)
		}
	}
	return nil
}

func names[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
