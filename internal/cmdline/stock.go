package cmdline

import (
	"fmt"
	"os"
	"slices"

	"github.com/micro/cli"
	micro "github.com/micro/go-micro"
	"github.com/micro/go-micro/config/cmd"
)

// Program is one of the two programs. Each program has its own set of go-micro flags.
type Program int

// The programs. Client calls services. Server is a service, and calls no services.
const (
	Client Program = iota
	Server
)

// stockFlag describes one of go-micro's flags.
type stockFlag struct {
	usage    string    // the flag's text on the help page
	programs []Program // the programs that have the flag
	why      string    // why the other programs do not have the flag; if empty, reason returns a general text
}

func (f stockFlag) has(p Program) bool { return slices.Contains(f.programs, p) }

// reason returns why p does not have the flag.
func (f stockFlag) reason(p Program) string {
	switch {
	case f.why != "":
		return f.why
	case p == Server:
		return "the server calls no service"
	default:
		return "the client registers no server"
	}
}

var (
	clientOnly = []Program{Client}
	serverOnly = []Program{Server}
	both       = []Program{Client, Server}
)

// stock maps the names of go-micro's flags to their descriptions.
var stock = map[string]stockFlag{
	"client":                 {programs: clientOnly, usage: "Protocol of the calls: grpc, or rpc for servers with --server=rpc"},
	"client_request_timeout": {programs: clientOnly, usage: "Deadline of a call with all its retries, for example 500ms or 5s; the default is 5s, or --hystrix_timeout if that is longer"},
	"client_retries":         {programs: clientOnly, usage: "Maximum number of retries of a failed call. The first retry waits 10ms, and each later retry waits ten times longer. Without the flag, fewer if the waits do not fit into the timeouts"},
	"client_pool_size":       {why: "all callers share one connection per node"},
	"client_pool_ttl":        {why: "all callers share one connection per node"},
	"register_ttl":           {programs: serverOnly, usage: "Lifetime of the registration, in seconds; if only --register_interval is set, three times the interval"},
	"register_interval":      {programs: serverOnly, usage: "Interval between renewals of the registration, in seconds; if only --register_ttl is set, a third of the TTL"},
	"server":                 {programs: serverOnly, usage: "Protocol of the server: grpc, or rpc for clients with --client=rpc"},
	"server_name":            {programs: serverOnly, usage: "Name of the service"},
	"server_version":         {programs: serverOnly, usage: "Version of the service"},
	"server_id":              {programs: serverOnly, usage: "end of the node's ID, after the service's name; the default is random"},
	"server_address":         {programs: serverOnly, usage: "host:port to listen on. Port 0 selects a free port, and an empty host all addresses"},
	"server_advertise":       {programs: serverOnly, usage: "host:port that clients dial; the default is the source address of the route to the registry, and the listening port"},
	"server_metadata":        {programs: serverOnly, usage: "key=value to register with the node; may be repeated"},
	"broker":                 {why: "nothing is published or subscribed to"},
	"broker_address":         {why: "nothing is published or subscribed to"},
	"registry":               {programs: both, usage: "Registry: consul or mdns"},
	"registry_address":       {programs: both, usage: "host:port of the Consul agent, or several, separated by commas; the default is CONSUL_HTTP_ADDR, or 127.0.0.1:8500"},
	"selector":               {why: "the client's round robin chooses the nodes"},
	"transport":              {why: "gRPC brings its own transport, and rpc uses HTTP"},
	"transport_address":      {why: "gRPC brings its own transport, and rpc uses HTTP"},
}

// stockVariables maps the variables that have no flag in go-micro to the reasons why they have
// no effect.
var stockVariables = map[string]string{
	"MICRO_PROXY":          "calls go to the nodes in the registry",
	"MICRO_PROXY_ADDRESS":  "calls go to the nodes in the registry",
	"MICRO_ROUTER":         stock["selector"].why,
	"MICRO_ROUTER_ADDRESS": stock["selector"].why,
}

// stockFlags returns go-micro's flags. Their defaults are the options of service. stockFlags hides
// the flags that have no effect on program.
func stockFlags(program Program, service micro.Service) []cli.Flag {
	server := service.Server().Options()
	texts := map[string]string{
		"client":         service.Client().String(),
		"server":         service.Server().String(),
		"server_name":    server.Name,
		"server_version": server.Version,
		"server_address": server.Address,
		"registry":       service.Options().Registry.String(),
	}
	numbers := map[string]int{
		"client_retries":    service.Client().Options().CallOptions.Retries,
		"register_ttl":      int(server.RegisterTTL.Seconds()),
		"register_interval": int(server.RegisterInterval.Seconds()),
	}
	flags := slices.Clone(cmd.DefaultFlags)
	for i, f := range flags {
		own := stock[f.GetName()]
		if program == Server && f.GetName() == "registry" {
			own.usage += ", or memory, in which no client finds the server"
		}
		switch f := f.(type) {
		case cli.StringFlag:
			// The flags that are not in texts have no default in go-micro.
			f.Value, f.Usage, f.Hidden = texts[f.Name], own.usage, !own.has(program)
			flags[i] = f
		case cli.IntFlag:
			f.Value, f.Usage, f.Hidden = numbers[f.Name], own.usage, !own.has(program)
			flags[i] = f
		case cli.StringSliceFlag:
			f.Usage, f.Hidden = own.usage, !own.has(program)
			flags[i] = f
		}
	}
	return flags
}

// variable returns the name of the environment variable that sets f.
func variable(f cli.Flag) string {
	switch f := f.(type) {
	case cli.StringFlag:
		return f.EnvVar
	case cli.IntFlag:
		return f.EnvVar
	case cli.StringSliceFlag:
		return f.EnvVar
	}
	return ""
}

// unsetIneffective unsets the environment variables that have no effect on program, because
// go-micro would read these variables. It returns one warning for each removed variable.
func unsetIneffective(program Program) (warnings []string) {
	unset := func(variable, why string) {
		if os.Getenv(variable) != "" {
			warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", variable, why))
			os.Unsetenv(variable)
		}
	}
	for _, f := range cmd.DefaultFlags {
		if own := stock[f.GetName()]; !own.has(program) {
			unset(variable(f), own.reason(program))
		}
	}
	for name, why := range stockVariables {
		unset(name, why)
	}
	slices.Sort(warnings)
	return warnings
}
