//go:build linux

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
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
	"github.com/shirou/gopsutil/v4/process"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/cluster"
	"github.com/gomicroexample/basis/dev/internal/measured"
)

const service = "go.micro.srv.basis"

// traffic has the settings of each client, without the rate: four callers, the deadline in
// docs/production.md, and breaker limits so high that the circuit stays closed.
var traffic = []string{
	"BASIS_CONCURRENCY=4", "BASIS_REQUESTS=0", "BASIS_VERBOSE=true", "BASIS_WAIT=1m",
	"MICRO_CLIENT_REQUEST_TIMEOUT=1s", "BASIS_HYSTRIX_TIMEOUT=10s",
	"BASIS_HYSTRIX_MAX_CONCURRENT=1000", "BASIS_HYSTRIX_ERROR_PERCENT=100", "BASIS_HYSTRIX_VOLUME=1000000",
}

// totalRate is the default number of calls per second of all clients together.
const totalRate = 250

// commands are the scripts' commands in addition to testscript's own.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"fault": fault,
	"hosts": hosts,
	"serve": serve,
	"down":  down,
	"call":  callers,
	"nodes": nodes,

	"mark":   mark,
	"hold":   hold,
	"within": within,

	"leader":   leader,
	"consul":   consulOn,
	"poweroff": powerOff,
	"cut":      cut,
	"split":    split,
	"heal":     heal,
	"lose":     lose,
	"clock":    clock,

	"calls":       calls,
	"called":      called,
	"failed":      failed,
	"rate":        rate,
	"latency":     latency,
	"slowdown":    slowdown,
	"connections": connections,
	"even":        even,
	"memory":      memory,
	"opened":      opened,
	"recovers":    recovers,
}

type sessionKey struct{}

// session is the state of a running script.
type session struct {
	*cluster.Cluster
	dir     string
	servers map[string]*server // by name, such as srv-1/2
	started map[string]int     // the number of servers started so far, by host
	clients []*client
	mark    time.Time // when a fault began or ended
	before  time.Duration
	row     measured.Row

	program string    // the path of another client than the pair's; may be empty
	stepsAt time.Time // when the clients' clock steps back
}

// server is a process of srv.
type server struct {
	*backend.Process
	address string // the address that clients call
}

// client is a process of client, and its calls.
type client struct {
	*backend.Process
	host  *cluster.Host
	read  int64 // the number of bytes of the log that were parsed
	calls []call
}

type call struct{ load.Line }

func (c call) failed() bool        { return c.Outcome != "ok" }
func (c call) end() time.Time      { return c.Start.Add(c.Latency) }
func (c call) took() time.Duration { return c.Latency - c.Waited }

// sent returns the time when the call's last attempt began, or when the call began if it had no
// attempt.
func (c call) sent() time.Time { return c.Start.Add(c.Waited) }

func of(ts *testscript.TestScript) *session { return ts.Value(sessionKey{}).(*session) }

func want(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func duration(ts *testscript.TestScript, arg string) time.Duration {
	d, err := time.ParseDuration(arg)
	ts.Check(err)
	return d
}

func number(ts *testscript.TestScript, arg string) int {
	n, err := strconv.Atoi(arg)
	ts.Check(err)
	return n
}

// eventually calls condition repeatedly until condition returns nil. If this takes longer than
// limit, eventually fails the script.
func eventually(ts *testscript.TestScript, limit time.Duration, condition func() error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := backend.Until(ctx, 50*time.Millisecond, condition); err != nil {
		ts.Fatalf("after %v: %v", limit, err)
	}
}

// host returns the host with the given name.
func (s *session) host(ts *testscript.TestScript, name string) *cluster.Host {
	h := s.Host(name)
	if h == nil {
		ts.Fatalf("no host %q", name)
	}
	return h
}

// logged returns all calls that a client has logged so far.
func (c *client) logged(ts *testscript.TestScript) []call {
	f, err := os.Open(c.Log)
	ts.Check(err)
	defer f.Close()
	_, err = f.Seek(c.read, io.SeekStart)
	ts.Check(err)
	b, err := io.ReadAll(f)
	ts.Check(err)
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	c.read += int64(len(b))
	lines, err := load.ParseLines(string(b))
	ts.Check(err)
	for _, l := range lines {
		c.calls = append(c.calls, call{l})
	}
	return c.calls
}

// logged returns all calls that all clients have logged so far.
func (s *session) logged(ts *testscript.TestScript) []call {
	var all []call
	for _, c := range s.clients {
		all = append(all, c.logged(ts)...)
	}
	return all
}

// The command "fault description allowed" sets the first two columns of the script's row: the
// fault, and the failed calls that are allowed.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "fault description allowed")
	of(ts).row = measured.Row{Fault: args[0], Allowed: args[1]}
}

// The command "hosts servers clients" starts a cluster with these numbers of hosts for servers and
// for clients.
func hosts(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "hosts servers clients")
	s := of(ts)
	s.servers, s.started = map[string]*server{}, map[string]int{}
	ctx, cancel := patient()
	defer cancel()
	var err error
	s.Cluster, err = start(ctx, s.dir, number(ts, args[0]), number(ts, args[1]))
	ts.Check(err)
}

// The command "serve [-nowait] host [n]" starts n more servers on a host, one by default. The
// servers on srv-1 are srv-1/1, srv-1/2 and so on. serve waits until the n servers have registered.
// With -nowait, it waits only until they listen.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	wait := true
	if len(args) > 0 && args[0] == "-nowait" {
		wait, args = false, args[1:]
	}
	want(ts, !neg && (len(args) == 1 || len(args) == 2), "serve [-nowait] host [n]")
	s := of(ts)
	h := s.host(ts, args[0])
	var names []string
	for range number(ts, append(args, "1")[1]) {
		s.started[h.Name]++
		name := fmt.Sprintf("%s/%d", h.Name, s.started[h.Name])
		p, err := h.Start(fmt.Sprintf("srv-%d", s.started[h.Name]), s.Environ(h), filepath.Join(dir, "srv"))
		ts.Check(err)
		s.servers[name] = &server{Process: p}
		names = append(names, name)
	}
	ctx, cancel := patient()
	defer cancel()
	listening := regexp.MustCompile(`Listening on \[::\]:(\d+)`)
	for _, name := range names {
		srv := s.servers[name]
		ts.Check(srv.WaitLog(ctx, listening, 1))
		log, err := os.ReadFile(srv.Log)
		ts.Check(err)
		srv.address = h.Addr + ":" + string(listening.FindSubmatch(log)[1])
		if wait {
			ts.Check(srv.WaitLog(ctx, regexp.MustCompile("Advertising"), 1))
		}
	}
}

// The command "down [-KILL] name..." stops servers one after another, and fails unless each exits
// with status 0. With -KILL, it kills the servers.
func down(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "down [-KILL] name...")
	s := of(ts)
	kill := args[0] == "-KILL"
	if kill {
		args = args[1:]
	}
	for _, name := range args {
		if kill {
			_ = s.server(ts, name).Stop(syscall.SIGKILL)
			continue
		}
		ts.Check(s.server(ts, name).Stop(syscall.SIGTERM))
	}
}

func (s *session) server(ts *testscript.TestScript, name string) *server {
	srv := s.servers[name]
	if srv == nil {
		ts.Fatalf("no server %q", name)
	}
	return srv
}

// The command "call [variable=value...]" starts a client on each host for clients, with the given
// variables. By default, all clients together make 250 calls per second.
func callers(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg, "call [variable=value...]")
	s := of(ts)
	all := s.Hosts("client-")
	env := append(slices.Clone(traffic), fmt.Sprintf("BASIS_RATE_LIMIT=%d", totalRate/len(all)))
	env = append(env, args...)
	if !s.stepsAt.IsZero() {
		env = append(env, fmt.Sprintf("CLOCK_STEPS_BACK_AT=%d", s.stepsAt.Unix()))
	}
	for _, h := range all {
		p, err := h.Start("client", s.Environ(h, env...), cmp.Or(s.program, filepath.Join(dir, "client")))
		ts.Check(err)
		s.clients = append(s.clients, &client{Process: p, host: h})
	}
}

// The command "nodes n" waits until n nodes are healthy in Consul.
func nodes(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "nodes n")
	ctx, cancel := patient()
	defer cancel()
	_, err := of(ts).Nodes(ctx, service, number(ts, args[0]))
	ts.Check(err)
}

// The command "mark" stores the current time. A script runs it when a fault begins or ends.
func mark(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "mark")
	of(ts).mark = time.Now()
}

// The command "hold duration" waits until duration has passed since the mark. With it, a script
// lets a fault last for this time.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "hold duration")
	time.Sleep(time.Until(of(ts).mark.Add(duration(ts, args[0]))))
}

// The command "within duration event" fails if more than duration has passed since the mark. It
// adds event and the passed time to the script's row.
func within(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "within duration event")
	s := of(ts)
	took := time.Since(s.mark)
	if limit := duration(ts, args[0]); took > limit {
		ts.Fatalf("%s after %v, not %v", args[1], took, limit)
	}
	s.row.Note("%s after %v", args[1], took.Round(100*time.Millisecond))
}

// The command "leader" sets $LEADER to the host of Consul's leader, and $FOLLOWER and $OTHER to the
// hosts of the other two Consul servers.
func leader(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "leader")
	s := of(ts)
	ctx, cancel := patient()
	defer cancel()
	l, err := s.Leader(ctx)
	ts.Check(err)
	ts.Setenv("LEADER", l.Name)
	rest := slices.DeleteFunc(s.Hosts("consul-"), func(h *cluster.Host) bool { return h == l })
	ts.Setenv("FOLLOWER", rest[0].Name)
	ts.Setenv("OTHER", rest[1].Name)
}

// The command "consul kill|start|freeze|wake host...|all" kills, starts, stops with SIGSTOP, or
// continues the Consul processes on these hosts.
func consulOn(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) >= 2, "consul kill|start|freeze|wake host...|all")
	s := of(ts)
	var on []*cluster.Host
	for _, name := range args[1:] {
		if name == "all" {
			on = slices.DeleteFunc(s.Hosts(""), func(h *cluster.Host) bool { return s.Consul(h) == nil })
			break
		}
		on = append(on, s.host(ts, name))
	}
	for _, h := range on {
		var err error
		switch p := s.Consul(h); args[0] {
		case "kill":
			_ = p.Stop(syscall.SIGKILL)
		case "start":
			err = s.StartConsul(h)
		case "freeze":
			err = syscall.Kill(p.Pid(), syscall.SIGSTOP)
		case "wake":
			err = syscall.Kill(p.Pid(), syscall.SIGCONT)
		default:
			err = fmt.Errorf("consul %s?", args[0])
		}
		ts.Check(err)
	}
}

// The command "poweroff host" ends a host as a power failure does.
func powerOff(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "poweroff host")
	s := of(ts)
	ts.Check(s.host(ts, args[0]).PowerOff())
}

// The command "cut host" drops all packets from and to a host.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "cut host")
	s := of(ts)
	ts.Check(s.host(ts, args[0]).Cut())
}

// The command "split host..." drops all packets between these hosts and the other hosts.
func split(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "split host...")
	s := of(ts)
	var side []*cluster.Host
	for _, name := range args {
		side = append(side, s.host(ts, name))
	}
	ts.Check(s.Split(side...))
}

// The command "heal" undoes the commands cut, split and lose.
func heal(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "heal")
	ts.Check(of(ts).Heal())
}

// The command "lose percent [host]" drops this percentage of the packets of a host, or of all
// hosts. The packets are chosen at random.
func lose(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && (len(args) == 1 || len(args) == 2), "lose percent [host]")
	s := of(ts)
	if len(args) == 2 {
		ts.Check(s.host(ts, args[1]).Lose(number(ts, args[0])))
		return
	}
	ts.Check(s.Lose(number(ts, args[0])))
}

// The command "calls n" waits until each client has logged n more calls.
func calls(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "calls n")
	n := number(ts, args[0])
	s := of(ts)
	before := map[*client]int{}
	for _, c := range s.clients {
		before[c] = len(c.logged(ts))
	}
	// The limit is patience, plus twice the time that the calls take.
	eventually(ts, patience+2*time.Duration(n*len(s.clients)/totalRate)*time.Second, func() error {
		for _, c := range s.clients {
			if made := len(c.logged(ts)) - before[c]; made < n {
				return fmt.Errorf("%d calls of the client on %s, not %d; its log ends:\n%s", made, c.host.Name, n, c.Tail())
			}
		}
		return nil
	})
}

// The command "called [-by=client] [-within=duration] server|host..." waits until each client has
// got a response since the mark from each of these servers. A host stands for all servers on the
// host. -by selects the client on one host. With -within, the command fails if this takes longer
// than duration after the mark. "! called" fails if a client has called one of these servers since
// the mark.
func called(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	clients := s.clients
	limit := patience
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, _ := strings.Cut(args[0], "=")
		switch name {
		case "-by":
			clients = slices.DeleteFunc(slices.Clone(clients), func(c *client) bool { return c.host.Name != value })
		case "-within":
			limit = duration(ts, value)
		}
		args = args[1:]
	}
	want(ts, len(args) > 0 && len(clients) > 0, "called [-by=client] [-within=duration] server|host...")
	targets := map[string]string{} // names by address
	for _, arg := range args {
		for name, srv := range s.servers {
			if name == arg || strings.HasPrefix(name, arg+"/") {
				targets[srv.address] = name
			}
		}
	}
	want(ts, len(targets) > 0, "called with servers that were started")
	for _, c := range clients {
		missing := func() error {
			answered := map[string]bool{}
			for _, k := range c.logged(ts) {
				if k.sent().After(s.mark) && (neg || !k.failed()) {
					answered[k.Node] = true
				}
			}
			for address, name := range targets {
				if answered[address] == neg {
					return fmt.Errorf("%s called %s (%s): %t", c.host.Name, name, address, neg)
				}
			}
			return nil
		}
		if neg {
			ts.Check(missing())
			continue
		}
		eventually(ts, time.Until(s.mark.Add(limit)), missing)
	}
	if limit < patience && !neg {
		s.row.Note("called after %v", time.Since(s.mark).Round(100*time.Millisecond))
	}
}

// The command "failed [-yet] [-after=duration] max" fails if more than max calls failed. With
// -after, it counts only the calls that ended at least duration after the mark. Without -yet, it
// stops the clients first.
func failed(ts *testscript.TestScript, neg bool, args []string) {
	var after time.Duration
	yet := false
	for len(args) > 1 {
		if value, ok := strings.CutPrefix(args[0], "-after="); ok {
			after = duration(ts, value)
		}
		yet = yet || args[0] == "-yet"
		args = args[1:]
	}
	want(ts, !neg && len(args) == 1, "failed [-yet] [-after=duration] max")
	s := of(ts)
	for _, c := range s.clients {
		if yet {
			continue
		}
		err := c.Stop(syscall.SIGINT)
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			ts.Fatalf("the client on %s: %v\n%s", c.host.Name, err, c.Tail())
		}
	}
	all := s.logged(ts)
	s.row.Calls, s.row.Failed = len(all), len(slices.DeleteFunc(slices.Clone(all), func(c call) bool { return !c.failed() }))
	if after > 0 {
		all = slices.DeleteFunc(all, func(c call) bool { return c.end().Before(s.mark.Add(after)) })
	}
	var bad []call
	for _, c := range all {
		if c.failed() {
			bad = append(bad, c)
		}
	}
	for _, c := range bad {
		ts.Logf("%v after the mark: %v", c.sent().Sub(s.mark).Round(time.Millisecond), c.Line)
	}
	if len(bad) > number(ts, args[0]) {
		ts.Fatalf("%d of %d calls failed, more than %s", len(bad), len(all), args[0])
	}
	if after > 0 {
		s.row.Note("%d of %d failed after %v", len(bad), len(all), after)
	}
}

// The command "rate min duration" looks for a period of one second in which the clients got at
// least min responses. The period must begin within duration after the mark. If there is no such
// period, the command fails.
func rate(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "rate min duration")
	least, limit := number(ts, args[0]), duration(ts, args[1])
	s := of(ts)
	best := 0
	for after := time.Duration(0); after <= limit; after += 100 * time.Millisecond {
		from := s.mark.Add(after)
		n := 0
		for _, c := range s.logged(ts) {
			if !c.failed() && c.end().After(from) && !c.end().After(from.Add(time.Second)) {
				n++
			}
		}
		if best = max(best, n); best >= least {
			s.row.Note("%d calls in the second that began after %v", n, after)
			return
		}
	}
	ts.Fatalf("at most %d answers in a second that began within %v of the mark, not %d", best, limit, least)
}

// quantile returns the quantile q of the durations of the calls' last attempts. It considers only
// last attempts that began after the mark.
func (s *session) quantile(ts *testscript.TestScript, q float64) time.Duration {
	var took []time.Duration
	for _, c := range s.logged(ts) {
		if c.sent().After(s.mark) {
			took = append(took, c.took())
		}
	}
	if len(took) == 0 {
		ts.Fatalf("no calls since the mark")
	}
	slices.Sort(took)
	return took[int(q*float64(len(took)-1))]
}

// The command "latency" adds the latencies of the calls since the mark to the script's row: p50,
// p99 and the maximum.
func latency(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "latency")
	s := of(ts)
	s.row.Note("p50 %v, p99 %v, max %v", s.quantile(ts, 0.5), s.quantile(ts, 0.99), s.quantile(ts, 1))
}

// A script runs the command "slowdown percent" twice. Each time, the command finds the median
// latency since the mark: it computes the median of each second, and uses the lowest. In the other
// seconds, the machine may have been busy with other work. The first time, before the fault, the
// command stores this median. The second time, it fails if the median has grown by more than
// percent and by more than a millisecond.
func slowdown(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "slowdown percent")
	s := of(ts)
	seconds := map[int64][]time.Duration{}
	for _, c := range s.logged(ts) {
		if c.sent().After(s.mark) {
			seconds[c.end().Unix()] = append(seconds[c.end().Unix()], c.took())
		}
	}
	p50 := time.Hour
	for _, took := range seconds {
		if slices.Sort(took); len(took) >= totalRate/2 {
			p50 = min(p50, took[len(took)/2])
		}
	}
	if s.before == 0 {
		s.before = p50
		return
	}
	if limit := max(s.before*time.Duration(100+number(ts, args[0]))/100, s.before+time.Millisecond); p50 > limit {
		ts.Fatalf("p50 of the best second %v, before %v", p50, s.before)
	}
	s.row.Note("p50 of the best second %v, before %v", p50, s.before)
}

// The command "connections max" waits until no client has more than max connections to servers.
func connections(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "connections max")
	s := of(ts)
	for _, c := range s.clients {
		n := 0
		eventually(ts, 20*time.Second, func() (err error) {
			if n, err = toServers(c.Pid()); err == nil && n > number(ts, args[0]) {
				err = fmt.Errorf("%d connections of the client on %s, not %s", n, c.host.Name, args[0])
			}
			return err
		})
		s.row.Note("%d connections of %s", n, c.host.Name)
	}
}

// The command "even" fails unless each server answered its share of each client's calls since the
// mark, plus or minus two calls. The tolerance has two reasons. At the mark and at the end, the
// round robin may be anywhere in its list. And a client has four callers: the order in which they
// send calls may differ from the order in which they chose the nodes.
func even(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "even")
	s := of(ts)
	least, most := math.MaxInt, 0
	for _, c := range s.clients {
		answered, all := map[string]int{}, 0
		for _, k := range c.logged(ts) {
			if k.sent().After(s.mark) {
				answered[k.Node]++
				all++
			}
		}
		share := float64(all) / float64(len(s.servers))
		for name, srv := range s.servers {
			n := answered[srv.address]
			if math.Abs(float64(n)-share) > 2 {
				ts.Fatalf("%s answered %d of %d calls of %s; its share is %.1f", name, n, all, c.host.Name, share)
			}
			least, most = min(least, n), max(most, n)
		}
	}
	s.row.Note("each server answered %d to %d calls of each client", least, most)
}

// The command "memory server" adds the memory and the connections of the first client and of a
// server to the script's row.
func memory(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "memory server")
	s := of(ts)
	for _, of := range []struct {
		name string
		pid  int
	}{{"client", s.clients[0].Pid()}, {"srv", s.server(ts, args[0]).Pid()}} {
		p, err := process.NewProcess(int32(of.pid))
		ts.Check(err)
		m, err := p.MemoryInfo()
		ts.Check(err)
		n, err := toServers(of.pid)
		ts.Check(err)
		s.row.Note("%s %.1f MB, %d connections", of.name, float64(m.RSS)/1e6, n)
	}
}

// toServers returns the number of TCP connections of a process, in any state. It does not count
// connections to Consul.
func toServers(pid int) (int, error) {
	all, err := psnet.ConnectionsPid("tcp", int32(pid))
	n := 0
	for _, c := range all {
		if c.Raddr.Port != 0 && c.Raddr.Port != 8500 {
			n++
		}
	}
	return n, err
}
