// Package cmdline parses the command line of a go-micro service. After a usage error, the program
// prints one line on stderr and exits with status 2. --help prints the program's defaults.
//
// Each program has only the go-micro flags that have an effect in this program. --help does not
// list the other go-micro flags, and to set one is a usage error. But other services on the same
// host may need the variable of such a flag. So this variable is no error: Parse prints a warning
// on stderr, and then ignores the variable.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
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

// go-micro has created its default router before this init runs.
func init() { quietrouter.Restore() }

// exitUsage is the exit status of a usage error.
const exitUsage = 2

// help is the template of the help page. Unlike go-micro's own template, it has no commands or
// arguments, because a service has none.
const help = `{{.Name}}: {{.Usage}}

Usage: {{.Name}} [options]

Options (each can also be set by the variable in brackets):
   {{range $i, $flag := .VisibleFlags}}{{if $i}}
   {{end}}{{$flag}}{{end}}
`

// Parse sets service's options from os.Args and the environment. Parse calls service.Init, which
// reads go-micro's flags for program, and the flags of micro.Flags. An empty variable counts as not
// set. Then Parse calls check to validate the values. Parse passes to check a function that reports
// whether the command line or a variable has set a flag. For the flag --delay, for example, check
// calls given("delay"). A usage error exits the process with status 2, and --help exits it with
// status 0.
//
// The options of micro.NewService are the defaults of the flags: micro.Name, micro.RegisterTTL,
// micro.RegisterInterval, micro.Registry, micro.Broker, and the retries of the client. These
// options also apply to another server or client that --server or --client selects. Wrappers do not
// apply to a selected server or client. So add wrappers with a second service.Init, after Parse.
//
// Parse may block, for example while it looks up a host name. Call signal.Notify only after
// Parse, so that a signal can end the process while Parse blocks.
func Parse(service micro.Service, program Program, check func(given func(flag string) bool) error) {
	app := service.Options().Cmd.App()
	own := app.Flags[len(cmd.DefaultFlags):]
	app.Flags = slices.Concat(own, stockFlags(program, service))
	unsetEmpty()
	warnings := unsetIneffective(program)
	repair()

	prefix := stderr(app.Name + ": ")
	failIf := func(err error) {
		if err != nil {
			fmt.Fprintf(prefix, "%v (see \"%s --help\")\n", err, app.Name)
			os.Exit(exitUsage)
		}
	}
	cli.AppHelpTemplate = help
	// Do not return errors to go-micro: it would print its help page and exit with status 0.
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		failIf(err)
		return nil
	}
	// The library micro/cli itself prints only one kind of error: it cannot parse an environment
	// variable.
	app.ErrWriter = prefix
	cli.OsExiter = func(int) { os.Exit(exitUsage) }
	apply := app.Before
	app.Before = func(ctx *cli.Context) error {
		failIf(checkMicro(ctx, program))
		more, err := checkRegistry(ctx, program)
		failIf(err)
		ttl, interval, err := registerTimes(ctx, program)
		failIf(err)
		failIf(apply(ctx))
		if program == Server {
			_ = service.Server().Init(server.RegisterTTL(ttl), server.RegisterInterval(interval)) // never fails
		}
		failIf(check(func(flag string) bool { return given(ctx, flag) }))
		for _, warning := range append(warnings, more...) {
			fmt.Fprintf(prefix, "%s\n", warning)
		}
		return nil
	}

	service.Init()
	opts := service.Options()
	service.Init(micro.Registry(opts.Registry), micro.Broker(opts.Broker))
}

// given reports whether the command line or the flag's variable sets the flag to a value that
// is not empty.
func given(ctx *cli.Context, flag string) bool {
	return ctx.IsSet(flag) && ctx.String(flag) != ""
}

// stderr is an io.Writer with a prefix. Each Write writes the prefix and then the text to
// os.Stderr.
type stderr string

func (prefix stderr) Write(b []byte) (int, error) {
	_, err := fmt.Fprintf(os.Stderr, "%s%s", string(prefix), b)
	return len(b), err
}

// NewBroker returns a broker that opens no port, for a service that does not publish or subscribe.
// go-micro's default broker opens a port in addition to the server's port.
func NewBroker(opts ...broker.Option) broker.Broker {
	// Set a context: without a context, the option broker.Registry panics.
	withContext := func(o *broker.Options) { o.Context = context.Background() }
	return memory.NewBroker(append([]broker.Option{withContext}, opts...)...)
}

// repair makes the implementations that flags select behave like the default ones.
func repair() {
	// The RPC server drains in-flight calls only if it is created with server.Wait.
	for name, newServer := range cmd.DefaultServers {
		cmd.DefaultServers[name] = func(opts ...server.Option) server.Server {
			return newServer(append([]server.Option{server.Wait(nil)}, opts...)...)
		}
	}
}

// unsetEmpty removes empty variables from the environment. For example, "${VARIABLE:-}" in a
// compose file makes an empty variable. The library would use the empty text as a value.
func unsetEmpty() {
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); value == "" {
			os.Unsetenv(name)
		}
	}
}

// checkMicro returns an error for arguments that go-micro would accept and then ignore.
func checkMicro(ctx *cli.Context, program Program) error {
	if ctx.Args().Present() {
		return fmt.Errorf("unexpected argument %q", ctx.Args().First())
	}
	for _, f := range cmd.DefaultFlags {
		// If program does not have a flag, only the command line can set the flag: unsetIneffective
		// has removed its variable.
		if name := f.GetName(); !stock[name].has(program) && ctx.IsSet(name) {
			return fmt.Errorf("--%s has no effect: %s", name, stock[name].reason(program))
		}
	}
	for _, choice := range []struct {
		flag  string
		names []string
	}{
		{"server", slices.Sorted(maps.Keys(cmd.DefaultServers))},
		{"client", slices.Sorted(maps.Keys(cmd.DefaultClients))},
	} {
		if name := ctx.String(choice.flag); name != "" && !slices.Contains(choice.names, name) {
			return fmt.Errorf("unknown %s %q; one of %s", choice.flag, name, strings.Join(choice.names, ", "))
		}
	}
	if n := ctx.Int("client_retries"); n < 0 {
		return fmt.Errorf("--client_retries is %d; want 0 or more", n)
	}
	if text := ctx.String("client_request_timeout"); text != "" {
		if d, err := time.ParseDuration(text); err != nil || d <= 0 {
			return fmt.Errorf("--client_request_timeout is %q; want a duration, as in 500ms or 5s", text)
		}
	}
	if addr := ctx.String("server_address"); addr != "" {
		if err := checkListen(addr); err != nil {
			return fmt.Errorf("--server_address: %w; want host:port, with a host of this machine or none", err)
		}
	}
	if addr := ctx.String("server_advertise"); addr != "" {
		if err := hostport.Check(addr); err != nil {
			return fmt.Errorf("--server_advertise: %w; want host:port", err)
		}
	}
	for _, pair := range ctx.StringSlice("server_metadata") {
		if key, _, ok := strings.Cut(pair, "="); !ok || key == "" {
			return fmt.Errorf("--server_metadata is %q; want key=value", pair)
		}
	}
	return nil
}

// checkListen returns an error if no program on this machine can listen on addr. It does not check
// whether addr's port is free: if the port is in use, the server returns an error when it listens.
func checkListen(addr string) error {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return err
	}
	tcp.Port = 0
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkRegistry checks --registry, --registry_address and CONSUL_HTTP_ADDR. It removes spaces,
// empty addresses and repeated addresses from --registry_address. For a registry without addresses,
// it clears a list of addresses that the variable has set. It returns warnings about settings that
// have no effect.
func checkRegistry(ctx *cli.Context, program Program) (warnings []string, err error) {
	const flag, variable = "registry_address", "MICRO_REGISTRY_ADDRESS"
	registries := []string{"consul", "mdns"}
	if program == Server {
		registries = append(registries, "memory")
	}
	name := ctx.String("registry")
	switch {
	case name == "", slices.Contains(registries, name):
	case name == "gossip":
		return nil, errors.New("--registry=gossip does not work: go-micro's gossip drops the announcement of a node with its endpoints, which is too large for its packets; want one of " + strings.Join(registries, ", "))
	case name == "memory":
		return nil, errors.New("--registry=memory does not work: the memory is this process's own, and no server is in it; want one of " + strings.Join(registries, ", "))
	default:
		return nil, fmt.Errorf("unknown registry %q; one of %s", name, strings.Join(registries, ", "))
	}
	if name == "memory" {
		warnings = append(warnings, "--registry=memory is this process's own memory; no client finds the server there")
	}
	if addr := os.Getenv("CONSUL_HTTP_ADDR"); addr != "" && name != "mdns" && name != "memory" {
		if err := consul.CheckAddress(strings.TrimSpace(addr)); err != nil {
			return nil, fmt.Errorf("CONSUL_HTTP_ADDR %w", err)
		}
	}
	if !given(ctx, flag) {
		return warnings, nil
	}

	if name == "mdns" || name == "memory" {
		if ctx.String(flag) != os.Getenv(variable) {
			return nil, fmt.Errorf("--%s has no effect: --registry=%s has no address", flag, name)
		}
		warnings = append(warnings, fmt.Sprintf("%s has no effect: --registry=%s has no address", variable, name))
		return warnings, ctx.Set(flag, "")
	}
	addrs, err := consul.ParseAddresses(ctx.String(flag))
	if err != nil {
		return nil, fmt.Errorf("--%s %w", flag, err)
	}
	return warnings, ctx.Set(flag, strings.Join(addrs, ","))
}

// maxSeconds is the maximum of --register_ttl and --register_interval, in seconds: one year. It
// prevents overflows when the program adds or multiplies such values.
const maxSeconds = 365 * 24 * 60 * 60

// registerTimes returns the TTL of a registration and the interval of its renewals. If only one
// of --register_ttl and --register_interval is given, registerTimes derives the other: the TTL
// is three times the interval. For the client it returns zeros.
func registerTimes(ctx *cli.Context, program Program) (ttl, interval time.Duration, err error) {
	if program != Server {
		return 0, 0, nil
	}
	for _, flag := range []string{"register_ttl", "register_interval"} {
		if n := ctx.Int(flag); n < 1 || n > maxSeconds {
			return 0, 0, fmt.Errorf("--%s is %d; want seconds, 1 to %d", flag, n, maxSeconds)
		}
	}
	ttl = time.Duration(ctx.Int("register_ttl")) * time.Second
	interval = time.Duration(ctx.Int("register_interval")) * time.Second
	switch givenTTL, givenInterval := given(ctx, "register_ttl"), given(ctx, "register_interval"); {
	case givenTTL && !givenInterval:
		interval = ttl / 3
	case givenInterval && !givenTTL:
		ttl = 3 * interval
	case ttl <= interval:
		return 0, 0, fmt.Errorf("--register_ttl is %v and --register_interval %v; want a longer TTL, three times the interval, or the server is not registered between renewals", ttl, interval)
	}
	return ttl, interval, nil
}
