// Package cmdline reads a go-micro service's command line as users expect of
// a command: bad usage is one line on stderr and exit status 2, --help shows
// the defaults that hold, and no flag undoes what the service was built with.
package cmdline

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/micro/cli"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/memory"
	"github.com/micro/go-micro/config/cmd"
	"github.com/micro/go-micro/server"

	"github.com/gomicroexample/basis/internal/consul"
	"github.com/gomicroexample/basis/internal/hostport"
	"github.com/gomicroexample/basis/internal/quietrouter"
)

// By now go-micro has created its default router.
func init() { quietrouter.Restore() }

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
// with micro.Flags from os.Args and the environment, where an empty variable counts
// as not set. It then asks check whether their values make sense. Bad usage ends
// the process with status 2, and --help with status 0.
//
// What service was built with by micro.Name, micro.RegisterTTL,
// micro.RegisterInterval, micro.Registry and micro.Broker, and how often its
// client tries again, holds unless a flag says otherwise, also for what --server
// or --client put in place of its own server or client. Wrappers are lost then, so
// they belong in a second service.Init, after Parse.
func Parse(service micro.Service, check func() error) {
	app := service.Options().Cmd.App()
	own := app.Flags[len(cmd.DefaultFlags):]
	app.Flags = slices.Concat(own, withDefaults(cmd.DefaultFlags, service))
	unsetEmpty()
	repair()

	prefix := stderr(app.Name + ": ")
	failIf := func(err error) {
		if err != nil {
			fmt.Fprintf(prefix, "%v (see \"%s --help\")\n", err, app.Name)
			os.Exit(exitUsage)
		}
	}
	cli.AppHelpTemplate = help
	// An error returned to go-micro has it print its help page and exit with 0.
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		failIf(err)
		return nil
	}
	// The only error left to the library is a variable that cannot be parsed.
	app.ErrWriter = prefix
	cli.OsExiter = func(int) { os.Exit(exitUsage) }
	apply := app.Before
	app.Before = func(ctx *cli.Context) error {
		failIf(checkMicro(ctx))
		failIf(apply(ctx))
		failIf(check())
		return nil
	}

	service.Init()
	opts := service.Options()
	service.Init(micro.Registry(opts.Registry), micro.Broker(opts.Broker))
}

// stderr is a writer to stderr that puts itself before what is written.
type stderr string

func (prefix stderr) Write(b []byte) (int, error) {
	_, err := fmt.Fprintf(os.Stderr, "%s%s", string(prefix), b)
	return len(b), err
}

// NewBroker returns a broker that opens no port, for services that neither
// publish nor subscribe. go-micro's default one listens on another port.
func NewBroker(opts ...broker.Option) broker.Broker {
	// Without a context it panics as soon as it is told of the registry.
	withContext := func(o *broker.Options) { o.Context = context.Background() }
	return memory.NewBroker(append([]broker.Option{withContext}, opts...)...)
}

// repair makes the implementations that flags select behave like the default ones.
func repair() {
	cmd.DefaultBrokers["memory"] = NewBroker
	// The RPC server drains in-flight calls only if it is created with server.Wait.
	for name, newServer := range cmd.DefaultServers {
		cmd.DefaultServers[name] = func(opts ...server.Option) server.Server {
			return newServer(append([]server.Option{server.Wait(nil)}, opts...)...)
		}
	}
}

// unsetEmpty removes empty variables from the environment, such as "${VARIABLE:-}"
// in a compose file makes. The library would take them for values.
func unsetEmpty() {
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); value == "" {
			os.Unsetenv(name)
		}
	}
}

// withDefaults returns flags with what service was built with as their defaults.
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
			f.Value = texts[f.Name] // go-micro has no defaults for the others
			flags[i] = f
		case cli.IntFlag:
			f.Value = numbers[f.Name]
			flags[i] = f
		}
	}
	return flags
}

// checkMicro refuses what go-micro would take without a word and then not do.
func checkMicro(ctx *cli.Context) error {
	if ctx.Args().Present() {
		return fmt.Errorf("unexpected argument %q", ctx.Args().First())
	}
	for _, choice := range []struct {
		flag  string
		names []string
	}{
		{"server", slices.Sorted(maps.Keys(cmd.DefaultServers))},
		{"client", slices.Sorted(maps.Keys(cmd.DefaultClients))},
		{"registry", slices.Sorted(maps.Keys(cmd.DefaultRegistries))},
	} {
		if name := ctx.String(choice.flag); name != "" && !slices.Contains(choice.names, name) {
			return fmt.Errorf("unknown %s %q; one of %s", choice.flag, name, strings.Join(choice.names, ", "))
		}
	}
	for _, flag := range []string{"client_retries", "client_pool_size", "register_ttl", "register_interval"} {
		if n := ctx.Int(flag); n < 0 {
			return fmt.Errorf("--%s is %d; want 0 or more", flag, n)
		}
	}
	for _, flag := range []string{"client_request_timeout", "client_pool_ttl"} {
		if text := ctx.String(flag); text != "" {
			if d, err := time.ParseDuration(text); err != nil || d <= 0 {
				return fmt.Errorf("--%s is %q; want a duration, as in 500ms or 5s", flag, text)
			}
		}
	}
	for _, addr := range strings.Split(ctx.String("registry_address"), ",") {
		if err := consul.CheckAddress(addr); err != nil {
			return fmt.Errorf("--registry_address %w", err)
		}
	}
	if addr := ctx.String("server_advertise"); addr != "" {
		if err := hostport.Check(addr); err != nil {
			return fmt.Errorf("--server_advertise: %w; want host:port", err)
		}
	}
	return nil
}
