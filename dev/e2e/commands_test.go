package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	psnet "github.com/shirou/gopsutil/v4/net"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/measured"
	"github.com/gomicroexample/basis/dev/internal/timeline"
	"github.com/gomicroexample/basis/internal/mtls"
)

const term = syscall.SIGTERM

// commands has the commands that this package adds to testscript's commands.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"agent":     agent,
	"join":      join,
	"up":        up,
	"down":      down,
	"ended":     ended,
	"await":     await,
	"nodes":     nodes,
	"exits":     exits,
	"latencies": latencies,
	"listens":   listens,
	"signal":    signal,
	"trace":     traced,

	"listening": listening,
	"peak":      peak,
	"post":      post,
	"garbage":   garbage,
	"halfopen":  halfopen,
	"fault":     fault,
	"deaf":      deaf,
	"flood":     flood,
	"bombs":     bombs,
	"longname":  longname,
	"impostor":  impostor,
	"liar":      liar,
	"balance":   balance,

	"prometheus": prometheus,
	"query":      query,
	"firing":     firing,
	"serves":     serves,
	"free":       free,

	"shows":      shows,
	"documented": documented,
	"sink":       sink,
}

type sessionKey struct{}

// session is the state of one script.
type session struct {
	env       *testscript.Env
	bin       string // directory of the binaries
	consul    *backend.Consul
	joined    *backend.Consul // another agent of the same cluster; nil if there is none
	processes map[string]*backend.Process

	row measured.Row // the script's measurements

	// Only scripts in testdata/faults use these fields.
	mark   time.Time // when the script last ran "mark", because it broke or repaired something
	load   output    // the client's output
	before []call    // the calls that ended before the mark when "slowdown" first ran
}

func newSession(env *testscript.Env, bin string) *session {
	s := &session{env: env, bin: bin, processes: map[string]*backend.Process{}}
	env.Defer(func() {
		for _, p := range s.processes {
			_ = p.Stop(syscall.SIGKILL)
		}
	})
	return s
}

func of(ts *testscript.TestScript) *session { return ts.Value(sessionKey{}).(*session) }

func (s *session) process(ts *testscript.TestScript, name string) *backend.Process {
	p := s.processes[name]
	if p == nil {
		ts.Fatalf("no process %q; there are %v", name, slices.Sorted(maps.Keys(s.processes)))
	}
	return p
}

func want(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// The command "agent [-config=file] [host]" starts a Consul agent on host, by default on
// 127.0.0.1. It sets $CONSUL and $CONSUL_HTTP_ADDR to the agent's address. By default, all programs
// use the agent in $CONSUL_HTTP_ADDR. If a script starts an agent again, the new agent has the same
// address and an empty catalog. -config names a configuration file with TLS and ACLs. Before a
// script runs agent with -config, it must set the variables of Consul's token and certificates.
func agent(ts *testscript.TestScript, neg bool, args []string) {
	var secured *backend.Security
	if len(args) > 0 && strings.HasPrefix(args[0], "-config=") {
		files := mtls.Files{
			Cert: ts.MkAbs(ts.Getenv("CONSUL_CLIENT_CERT")),
			Key:  ts.MkAbs(ts.Getenv("CONSUL_CLIENT_KEY")),
			CA:   ts.MkAbs(ts.Getenv("CONSUL_CACERT")),
		}
		config, err := files.Config("localhost")
		ts.Check(err)
		secured = &backend.Security{
			Config: ts.MkAbs(strings.TrimPrefix(args[0], "-config=")),
			TLS:    config,
			Token:  ts.Getenv("CONSUL_HTTP_TOKEN"),
		}
		args = args[1:]
	}
	want(ts, !neg && len(args) <= 1, "agent [-config=file] [host]")
	host := "127.0.0.1"
	if len(args) == 1 {
		host = args[0]
	}
	ctx, cancel := patient()
	defer cancel()
	s := of(ts)
	var ports backend.ConsulPorts
	if s.consul != nil {
		_, p, err := net.SplitHostPort(s.consul.Addr)
		ts.Check(err)
		ports.HTTP, err = strconv.Atoi(p)
		ts.Check(err)
	}
	c, err := backend.StartConsul(ctx, consul, ts.MkAbs("."), host, ports, secured)
	ts.Check(err)
	s.consul = c
	s.processes["consul"] = c.Process
	ts.Setenv("CONSUL", c.Addr)
	ts.Setenv("CONSUL_HTTP_ADDR", c.Addr)
}

// The command "join" starts a client agent on 127.0.0.1, which joins the Consul of the command
// "agent". It sets $AGENT to the new agent's address. The process has the name "agent". If a script
// runs join again, the same agent restarts.
func join(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	want(ts, !neg && len(args) == 0 && s.consul != nil, "join, after agent")
	ctx, cancel := patient()
	defer cancel()
	var ports backend.ConsulPorts
	if s.joined != nil {
		ports = s.joined.Ports()
	}
	a, err := s.consul.Join(ctx, consul, ts.MkAbs("."), ports)
	ts.Check(err)
	s.joined = a
	s.processes["agent"] = a.Process
	ts.Setenv("AGENT", a.Addr)
}

// The command "up name command [args...]" starts a process in the background. Its output goes to
// name.log.
func up(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) >= 2, "up name command [args...]")
	s := of(ts)
	name := args[0]
	path, err := exec.LookPath(filepath.Join(s.bin, args[1]))
	ts.Check(err)
	// The script's variables when the script started, without the variables of the test process.
	env := slices.Clone(s.env.Vars)
	for _, key := range []string{ // the variables that scripts change
		"CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL", "CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY",
		"CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "GORACE", "JAEGER_ADDRESS", "JAEGER_REPORTER_LOG_SPANS",
		"BASIS_REFLECTION", "JAEGER_PROPAGATION", "HTTP_PROXY", "HTTPS_PROXY", "JAEGER_PORT", "JAEGER_AGENT_PORT", "CONSUL_PORT", "BASIS_PORT",
	} {
		env = append(env, key+"="+ts.Getenv(key))
	}
	p, err := backend.Start(name, ts.MkAbs(name+".log"), env, path, args[2:]...)
	ts.Check(err)
	s.processes[name] = p
}

// The command "down [-INT|-KILL|-ABRT] name [status]" sends a process a signal, by default
// SIGTERM, and waits for its exit. The process must exit with the given status, or with 0 if no
// status is given. If a signal ended the process, the exit status is -1. With -KILL, down does not
// check the exit status.
func down(ts *testscript.TestScript, neg bool, args []string) {
	sig := term
	if len(args) > 0 {
		switch args[0] {
		case "-INT":
			sig, args = syscall.SIGINT, args[1:]
		case "-KILL":
			sig, args = syscall.SIGKILL, args[1:]
		case "-ABRT":
			sig, args = syscall.SIGABRT, args[1:]
		}
	}
	want(ts, !neg && (len(args) == 1 || len(args) == 2), "down [-INT|-KILL|-ABRT] name [status]")
	s := of(ts)
	p := s.process(ts, args[0])
	err := p.Stop(sig)
	delete(s.processes, args[0])
	if sig != syscall.SIGKILL {
		checkStatus(ts, err, append(args, "0")[1], p.Tail())
	}
}

// The command "ended name [status]" waits until a process exits by itself. The process must exit
// with the given status, or with 0 if no status is given.
func ended(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && (len(args) == 1 || len(args) == 2), "ended name [status]")
	s := of(ts)
	p := s.process(ts, args[0])
	ctx, cancel := patient()
	defer cancel()
	err := p.Wait(ctx)
	delete(s.processes, args[0])
	checkStatus(ts, err, append(args, "0")[1], p.Tail())
}

// checkStatus checks a process's exit status. err is the result of the wait for the process; nil is
// status 0. If the exit status is not status, checkStatus prints tail, the end of the process's
// log, and fails the script.
func checkStatus(ts *testscript.TestScript, err error, status string, tail []byte) {
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != status {
		ts.Fatalf("exit status %d, not %s\n%s", got, status, tail)
	}
}

// The command "await [-count=n] name regexp" waits until the log of a process has n matches of
// regexp, by default 1.
func await(ts *testscript.TestScript, neg bool, args []string) {
	n := 1
	if len(args) == 3 {
		var err error
		n, err = strconv.Atoi(strings.TrimPrefix(args[0], "-count="))
		ts.Check(err)
		args = args[1:]
	}
	want(ts, !neg && len(args) == 2, "await [-count=n] name regexp")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	ctx, cancel := patient()
	defer cancel()
	ts.Check(of(ts).process(ts, args[0]).WaitLog(ctx, re, n))
}

// The command "signal -INT|-QUIT|-STOP|-TERM name" sends a signal to a process and does not wait.
// After -STOP, the process does not react to requests at all, and only "down -KILL" ends it.
func signal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"-INT": syscall.SIGINT, "-QUIT": syscall.SIGQUIT, "-STOP": syscall.SIGSTOP, "-TERM": term}
	want(ts, !neg && len(args) == 2 && signals[args[0]] != 0, "signal -INT|-QUIT|-STOP|-TERM name")
	ts.Check(syscall.Kill(of(ts).process(ts, args[1]).Pid(), signals[args[0]]))
}

// The command "nodes n" waits until Consul has n healthy nodes of the service, and prints their
// addresses.
func nodes(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "nodes n")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := patient()
	defer cancel()
	addresses, err := of(ts).consul.Nodes(ctx, "go.micro.srv.basis", n)
	ts.Check(err)
	for _, a := range addresses {
		fmt.Fprintln(ts.Stdout(), a)
	}
}

// The command "exits status command [args...]" runs a command, which must exit with status within
// 3 s. The command usually takes less than a second; 3 s allow for a busy machine.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) >= 2, "exits status command [args...]")
	start := time.Now()
	err := ts.Exec(args[1], args[2:]...)
	took := time.Since(start)
	checkStatus(ts, err, args[0], nil) // no tail: testscript has printed the output
	if took > 3*time.Second {
		ts.Fatalf("took %v", took)
	}
}

// The command "latencies duration..." compares the latencies of a client's calls with the given
// durations. The last command must have been a client with --verbose. latencies sorts the calls by
// latency. Each call may take up to 0.9 s more than the given duration. A call may also take up to
// 0.2 s less, because a caller that starts late waits less for the limiter.
func latencies(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "latencies duration...")
	calls, err := load.ParseLines(ts.ReadFile("stderr"))
	ts.Check(err)
	var got []time.Duration
	for _, c := range calls {
		got = append(got, c.Latency)
	}
	slices.Sort(got)
	if len(got) != len(args) {
		ts.Fatalf("%d calls, not %d: %v", len(got), len(args), got)
	}
	for i, arg := range args {
		d, err := time.ParseDuration(arg)
		ts.Check(err)
		if got[i] < d-200*time.Millisecond || got[i] > d+900*time.Millisecond {
			ts.Fatalf("latencies %v, not about %v", got, args)
		}
	}
}

// The command "listens name n" fails the script unless the process listens on n TCP ports.
func listens(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "listens name n")
	connections, err := psnet.ConnectionsPid("tcp", int32(of(ts).process(ts, args[0]).Pid()))
	ts.Check(err)
	var listening []string
	for _, c := range connections {
		if c.Status == "LISTEN" {
			listening = append(listening, fmt.Sprintf("%s:%d", c.Laddr.IP, c.Laddr.Port))
		}
	}
	if strconv.Itoa(len(listening)) != args[1] {
		ts.Fatalf("listens on %v, not on %s", listening, args[1])
	}
}

// The command "trace file n" prints a trace. file contains a client's output with --verbose:
// stderr, or a log. The command waits until Jaeger has n spans of the trace of the first call in
// file, and sets $TRACE to the trace's ID. It prints one line for each span: service, operation,
// parent, and the tags that the pair sets.
func traced(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "trace file n")
	calls, err := load.ParseLines(ts.ReadFile(args[0]))
	ts.Check(err)
	if len(calls) == 0 {
		ts.Fatalf("no call in %s", args[0])
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := patient()
	defer cancel()
	spans, err := timeline.Await(ctx, jaeger.URL, calls[0].Trace, n)
	ts.Check(err)
	ts.Setenv("TRACE", calls[0].Trace)
	for _, s := range spans {
		fmt.Fprintf(ts.Stdout(), "%s %s < %s", s.Service, s.Operation, s.Parent)
		for _, tag := range []string{"req", "resp", "res", "err", "error"} {
			if v, ok := s.Tags[tag]; ok {
				fmt.Fprintf(ts.Stdout(), " %s=%s", tag, v)
			}
		}
		fmt.Fprintln(ts.Stdout())
	}
}
