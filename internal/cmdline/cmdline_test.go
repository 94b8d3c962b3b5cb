package cmdline_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/config/cmd"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/gossip"
	"github.com/micro/go-micro/registry/memory"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/internal/cmdline"
)

// programVariable is the name of an environment variable. If the variable has the name of a
// program, the test binary runs as this program, and prints the options that Parse has set.
const programVariable = "BASIS_TEST_PROGRAM"

var programs = map[string]cmdline.Program{"client": cmdline.Client, "srv": cmdline.Server}

func TestMain(m *testing.M) {
	if name := os.Getenv(programVariable); name != "" {
		program(name)
		return
	}
	os.Exit(m.Run())
}

// consulRegistry is a registry in memory that has the name of Consul's registry.
type consulRegistry struct{ registry.Registry }

func (consulRegistry) String() string { return "consul" }

func program(name string) {
	service := micro.NewService(
		micro.Server(grpcserver.NewServer()),
		micro.Client(grpcclient.NewClient(microclient.Retries(2))),
		micro.Registry(consulRegistry{memory.NewRegistry()}),
		micro.Broker(cmdline.NewBroker()),
		micro.Name("example"),
		micro.RegisterTTL(30*time.Second),
		micro.RegisterInterval(10*time.Second),
		micro.Cmd(cmd.NewCmd(cmd.Name(name))),
	)
	var set []string
	cmdline.Parse(service, programs[name], func(given func(flag string) bool) error {
		for _, f := range cmd.DefaultFlags {
			if given(f.GetName()) {
				set = append(set, f.GetName())
			}
		}
		return nil
	})
	server, call := service.Server().Options(), service.Client().Options().CallOptions
	fmt.Println("given", set)
	fmt.Println("ttl", server.RegisterTTL, "interval", server.RegisterInterval)
	fmt.Println("retries", call.Retries, "timeout", call.RequestTimeout)
	fmt.Println("registry", service.Options().Registry, service.Options().Registry.Options().Addrs)
	fmt.Println("server", service.Server(), server.Name, server.Version, server.Id, server.Address, server.Advertise, server.Metadata)
	fmt.Println("client", service.Client())
	fmt.Println("proxy", os.Getenv("MICRO_PROXY"), os.Getenv("MICRO_PROXY_ADDRESS"))
}

// run runs a program. If an item of args begins with a dash, run passes the item to the program as
// an argument. All other items are environment variables, as name=value.
func run(t *testing.T, name string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	// By default, the race detector sleeps for a second before each program exits.
	c.Env = []string{programVariable + "=" + name, "GORACE=atexit_sleep_ms=0"}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			c.Args = append(c.Args, arg)
		} else {
			c.Env = append(c.Env, arg)
		}
	}
	var out, problems strings.Builder
	c.Stdout, c.Stderr = &out, &problems
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return c.ProcessState.ExitCode(), out.String(), problems.String()
}

// flagValues has, for each go-micro flag, a value that go-micro accepts, the text that the function
// program prints for this value, and the names of the programs that have the flag. If no program
// has the flag, programs is empty.
var flagValues = map[string]struct{ value, prints, programs string }{
	"client":                 {"rpc", "client mucp", "client"},
	"client_request_timeout": {"7s", "timeout 7s", "client"},
	"client_retries":         {"3", "retries 3", "client"},
	"client_pool_size":       {value: "1"},
	"client_pool_ttl":        {value: "1m"},
	"register_ttl":           {"60", "ttl 1m0s", "srv"},
	"register_interval":      {"20", "interval 20s", "srv"},
	"server":                 {"rpc", "server mucp example", "srv"},
	"server_name":            {"other", "server grpc other", "srv"},
	"server_version":         {"1.2.3", " 1.2.3 ", "srv"},
	"server_id":              {"one", " one ", "srv"},
	"server_address":         {"127.0.0.1:0", " 127.0.0.1:0 ", "srv"},
	"server_advertise":       {"192.0.2.1:80", " 192.0.2.1:80 ", "srv"},
	"server_metadata":        {"key=value", "map[key:value]", "srv"},
	"broker":                 {value: "memory"},
	"broker_address":         {value: "127.0.0.1:1"},
	"registry":               {"mdns", "registry mdns", "client srv"},
	"registry_address":       {"192.0.2.1:8500", "[192.0.2.1:8500]", "client srv"},
	"selector":               {value: "static"},
	"transport":              {value: "memory"},
	"transport_address":      {value: "127.0.0.1:1"},
}

func TestEachFlagOfGoMicroWorksOrIsRefused(t *testing.T) {
	t.Parallel()
	for name := range programs {
		_, help, _ := run(t, name, "--help")
		_, without, _ := run(t, name)
		for _, f := range cmd.DefaultFlags {
			flag := f.GetName()
			t.Run(name+" "+flag, func(t *testing.T) {
				t.Parallel()
				want, ok := flagValues[flag]
				require.True(t, ok, "a flag that this test does not know")
				arg, variable := "--"+flag+"="+want.value, "MICRO_"+strings.ToUpper(flag)
				lines := regexp.MustCompile(`(?m)^ +--`+flag+` .*$`).FindAllString(help, -1)

				if slices.Contains(strings.Fields(want.programs), name) {
					require.Len(t, lines, 1)
					require.Contains(t, lines[0], "[$"+variable+"]")
					require.LessOrEqual(t, strings.Count(strings.ToLower(lines[0]), "default"), 1, lines[0])
					for _, how := range []string{arg, variable + "=" + want.value} {
						status, out, problems := run(t, name, how)
						require.Zero(t, status, problems)
						require.Empty(t, problems)
						require.Contains(t, strings.ReplaceAll(out, "\n", " \n"), want.prints)
						require.Contains(t, out, "given ["+flag+"]")
					}
					return
				}
				require.Empty(t, lines)
				status, out, problems := run(t, name, arg)
				require.Equal(t, 2, status)
				require.Empty(t, out)
				require.Regexp(t, "^"+name+": --"+flag+" has no effect: .+\n$", problems)

				// The variable changes nothing, and may have any value.
				for _, value := range []string{want.value, "nonsense"} {
					status, out, problems = run(t, name, variable+"="+value)
					require.Zero(t, status, problems)
					require.Regexp(t, "^"+name+": "+variable+" has no effect: .+\n$", problems)
					require.Equal(t, withoutID(without), withoutID(out))
				}
			})
		}
	}
}

// withoutID removes the random ID of the server from out, the output of a program.
func withoutID(out string) string {
	return regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(out, "ID")
}

func TestVariablesOfGoMicroWithoutAFlagHaveNoEffect(t *testing.T) {
	t.Parallel()
	for name := range programs {
		status, out, problems := run(t, name, "MICRO_PROXY=other", "MICRO_PROXY_ADDRESS=192.0.2.1:1", "MICRO_ROUTER=r", "MICRO_ROUTER_ADDRESS=192.0.2.1:1")
		require.Zero(t, status)
		require.Regexp(t, `^(?:`+name+`: MICRO_(?:PROXY|ROUTER)(?:_ADDRESS)? has no effect: .+\n){4}$`, problems)
		require.Contains(t, out, "proxy  \n")
	}
}

func TestRegistries(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args     []string
		programs string
		status   int
		want     string // on stderr
	}{
		{[]string{"--registry=gossip"}, "client srv", 2, "--registry=gossip does not work: "},
		{[]string{"--registry=gossip", "--registry_address=127.0.0.1:1"}, "client srv", 2, "--registry=gossip does not work: "},
		{[]string{"MICRO_REGISTRY=gossip", "MICRO_REGISTRY_ADDRESS=127.0.0.1:1"}, "client srv", 2, "--registry=gossip does not work: "},
		{[]string{"--registry=memory"}, "client", 2, "--registry=memory does not work: "},
		{[]string{"--registry=memory"}, "srv", 0, "--registry=memory is this process's own memory; no client finds the server there"},
		{[]string{"--registry=nope"}, "client", 2, `unknown registry "nope"; one of consul, mdns (`},
		{[]string{"--registry=nope"}, "srv", 2, `unknown registry "nope"; one of consul, mdns, memory (`},
		{[]string{"--registry=mdns", "--registry_address=127.0.0.1:1"}, "client srv", 2, "--registry_address has no effect: --registry=mdns has no address"},
		{[]string{"MICRO_REGISTRY=mdns", "--registry_address=127.0.0.1:1"}, "client srv", 2, "--registry_address has no effect: --registry=mdns has no address"},
		{[]string{"--registry=mdns", "MICRO_REGISTRY_ADDRESS=127.0.0.1:1"}, "client srv", 0, "MICRO_REGISTRY_ADDRESS has no effect: --registry=mdns has no address"},
		{[]string{"--registry=consul", "--registry_address=127.0.0.1:1"}, "client srv", 0, ""},
		{[]string{"--registry_address=,"}, "client srv", 2, `--registry_address is ","; want host:port`},
	} {
		for _, name := range strings.Fields(test.programs) {
			status, _, problems := run(t, name, test.args...)
			require.Equal(t, test.status, status, "%v: %s", test.args, problems)
			if test.want == "" {
				require.Empty(t, problems)
			} else {
				require.Contains(t, problems, name+": "+test.want)
				require.Equal(t, 1, strings.Count(problems, "\n"), problems)
			}
		}
	}
	_, out, _ := run(t, "client", "--registry_address= 127.0.0.1:1, ,127.0.0.1:2,")
	require.Contains(t, out, "registry consul [127.0.0.1:1 127.0.0.1:2]\n")
	_, out, _ = run(t, "client", "MICRO_REGISTRY=mdns", "MICRO_REGISTRY_ADDRESS=127.0.0.1:1")
	require.Contains(t, out, "registry mdns []\n")
}

// If the TTL were shorter than the interval, the registration would expire before its renewal.
func TestTheTTLIsLongerThanTheInterval(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"", "ttl 30s interval 10s\n"},
		{"--register_ttl=60", "ttl 1m0s interval 20s\n"},
		{"--register_ttl=10", "ttl 10s interval 3.333333333s\n"},
		{"--register_ttl=1", "ttl 1s interval 333.333333ms\n"},
		{"--register_interval=30", "ttl 1m30s interval 30s\n"},
		{"MICRO_REGISTER_INTERVAL=60", "ttl 3m0s interval 1m0s\n"},
		{"--register_interval=31536000", "ttl 26280h0m0s interval 8760h0m0s\n"},
		{"--register_ttl=3 --register_interval=2", "ttl 3s interval 2s\n"},
		{"MICRO_REGISTER_TTL=3 --register_interval=1", "ttl 3s interval 1s\n"},
		{"--server=rpc --register_ttl=60", "ttl 1m0s interval 20s\n"},
	} {
		status, out, problems := run(t, "srv", strings.Fields(test.args)...)
		require.Zero(t, status, problems)
		require.Contains(t, out, test.want, test.args)
	}
	for _, test := range []struct{ args, want string }{
		{"--register_ttl=10 --register_interval=10", "srv: --register_ttl is 10s and --register_interval 10s; want a longer TTL"},
		{"--register_ttl=30 --register_interval=10 --register_ttl=5", "srv: --register_ttl is 5s and --register_interval 10s; want a longer TTL"},
		{"MICRO_REGISTER_TTL=5 MICRO_REGISTER_INTERVAL=6", "srv: --register_ttl is 5s and --register_interval 6s; want a longer TTL"},
		{"--register_ttl=0", "srv: --register_ttl is 0; want seconds, 1 to 31536000"},
		{"--register_interval=0", "srv: --register_interval is 0; want seconds, 1 to 31536000"},
		{"--register_ttl=-1", "srv: --register_ttl is -1; want seconds"},
		{"--register_ttl=9223372037", "srv: --register_ttl is 9223372037; want seconds"},            // overflows
		{"MICRO_REGISTER_INTERVAL=18446744074", "srv: --register_interval is 18446744074; want se"}, // would overflow to 0.29 s
	} {
		status, out, problems := run(t, "srv", strings.Fields(test.args)...)
		require.Equal(t, 2, status, test.args)
		require.Empty(t, out)
		require.Contains(t, problems, test.want)
	}
}

// given also reports true for a flag that is set to its default value.
func TestGiven(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"--client_request_timeout=5s", "MICRO_CLIENT_REQUEST_TIMEOUT=5s"} {
		_, out, _ := run(t, "client", args)
		require.Contains(t, out, "given [client_request_timeout]\n")
	}
	for _, args := range []string{"--client_request_timeout=", "MICRO_CLIENT_REQUEST_TIMEOUT="} {
		_, out, _ := run(t, "client", args)
		require.Contains(t, out, "given []\n")
	}
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ program, arg, want string }{
		{"srv", "--server_address=8080", "--server_address: address 8080: missing port in address; want host:port"},
		{"srv", "--server_address=127.0.0.1:70000", "--server_address: address 70000: invalid port; want host:port"},
		{"srv", "--server_address=127.0.0.1:8000-9000", "--server_address: lookup tcp/8000-9000: "},
		{"srv", "--server_address=192.0.2.77:0", "--server_address: listen tcp 192.0.2.77:0: bind: cannot assign requested address; want"},
		{"srv", "--server_advertise=192.0.2.1", "--server_advertise: "},
		{"srv", "--server_metadata=value", `--server_metadata is "value"; want key=value`},
		{"srv", "--server_metadata==value", `--server_metadata is "=value"; want key=value`},
		{"client", "--client_retries=-1", "--client_retries is -1; want 0 or more"},
		{"client", "--client_request_timeout=0s", `--client_request_timeout is "0s"; want a duration`},
		{"client", "--client=nope", `unknown client "nope"; one of grpc, mucp, rpc`},
	} {
		status, out, problems := run(t, test.program, test.arg)
		require.Equal(t, 2, status, test.arg)
		require.Empty(t, out)
		require.Contains(t, problems, test.program+": "+test.want)
		require.Equal(t, 1, strings.Count(problems, "\n"), problems)
	}
}

// go-micro's gossip registry drops an announcement that does not fit into one packet. For
// example, the announcement of a service with a few endpoints does not fit.
func TestStockGossipDropsLargeAnnouncements(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	first := gossip.NewRegistry(gossip.Address(l.Addr().String()))
	defer func() { require.NoError(t, first.(interface{ Stop() error }).Stop()) }()
	second := gossip.NewRegistry(gossip.Address("127.0.0.1:0"), registry.Addrs(l.Addr().String()))
	defer func() { require.NoError(t, second.(interface{ Stop() error }).Stop()) }()

	large := &registry.Service{Name: "large", Version: "1", Metadata: map[string]string{"key": strings.Repeat("x", 1400)}}
	require.NoError(t, second.Register(large, registry.RegisterTTL(time.Hour)))
	require.NoError(t, second.Register(&registry.Service{Name: "small", Version: "1"}, registry.RegisterTTL(time.Hour)))
	require.Eventually(t, func() bool {
		services, err := first.GetService("small")
		return err == nil && len(services) == 1
	}, time.Minute, 10*time.Millisecond)
	_, err = first.GetService("large")
	require.Equal(t, registry.ErrNotFound, err)
}
