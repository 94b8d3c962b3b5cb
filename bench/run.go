package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/gomicroexample/basis/bench/contender"
	"github.com/gomicroexample/basis/internal/backend"
	"github.com/gomicroexample/basis/internal/tool"
)

// serviceName is that of the pair's own service, which a client as users run it
// calls.
const serviceName = "go.micro.srv.basis"

// patience is how long a process may take to be ready, and a call to be answered.
const patience = 30 * time.Second

// one is a contender and what the table says of it.
type one struct {
	name    string
	what    string
	program string   // its folder in contender/
	pair    bool     // its server is srv
	client  []string // arguments of its client
	server  []string // arguments of its server
	spans   int      // that each call sends; 0 if nothing is traced
	loses   bool     // it may send fewer: the article's tracer has a queue of 100, and drops what is too much
	callers []int    // how many make calls at once, in turn
}

// How many callers make calls, with all contenders and with those that are to
// show growth.
var (
	few  = []int{1, 16, 64}
	many = []int{1, 16, 64, 256}
)

// contenders are what is compared.
var contenders = []one{
	{name: "limit", what: "grpc-go alone: one connection, nothing discovered or traced", program: "limit", callers: many},
	{name: "basis", what: "this pair: round robin, limiter, breaker and tracer", program: "basis", pair: true, spans: 4, callers: many},
	{name: "basis-bare", what: "this pair without these four", program: "basis", pair: true, client: wrappers(""), callers: few},
	{name: "article", what: "go-micro as the article wires it: the same four, over its own RPC", program: "article", spans: 4, loses: true, callers: few},
	{name: "gokit", what: "go-kit with the same four, on the same libraries and over gRPC", program: "gokit", spans: 4, callers: few},
	{name: "kratos", what: "kratos v2 with its own four, over gRPC; it is told where its server is instead of discovering it, since its module for Consul could not be fetched", program: "kratos", spans: 4, callers: few},
	{name: "+roundrobin", program: "basis", pair: true, client: wrappers("roundrobin"), callers: few},
	{name: "+limiter", program: "basis", pair: true, client: wrappers("limiter"), callers: few},
	{name: "+breaker", program: "basis", pair: true, client: wrappers("breaker"), callers: few},
	{name: "+opentracing", program: "basis", pair: true, client: wrappers("opentracing"), spans: 4, callers: few},
	{name: "limit-quiet", program: "limit", server: []string{"-quiet"}, callers: []int{16}},
	{name: "limit-50", program: "limit", server: instances(50), callers: []int{16}},
	{name: "basis-1", program: "basis", server: instances(1), spans: 4, callers: []int{16}},
	{name: "basis-10", program: "basis", server: instances(10), spans: 4, callers: []int{16}},
	{name: "basis-50", program: "basis", server: instances(50), spans: 4, callers: []int{16}},
}

// What the tables list, in this order.
var (
	peers = []string{"limit", "basis", "basis-bare", "article", "gokit", "kratos"}
	costs = []string{"basis-bare", "+roundrobin", "+limiter", "+breaker", "+opentracing", "basis"}
)

func wrappers(names string) []string { return []string{"-wrappers=" + names} }

func instances(n int) []string { return []string{fmt.Sprintf("-instances=%d", n)} }

// all is every contender, running, and the Consul that they share.
type all struct {
	dir    string // of binaries and logs
	consul *backend.Consul
	ones   []*running
}

// running is a contender whose server and client run. They stay, idle, while
// others are measured.
type running struct {
	one
	server   *backend.Process
	client   *client
	receiver *receiver
	calls    int // made, warm-ups included
}

// start starts everything.
func start(ctx context.Context, dir string, ones []one) (_ *all, err error) {
	path, err := tool.Consul.Find()
	if errors.Is(err, tool.ErrMissing) {
		return nil, fmt.Errorf("%w; build it with \"make tools\"", err)
	}
	if err != nil {
		return nil, err
	}
	a := &all{dir: dir}
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	startCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.consul, err = backend.StartConsul(startCtx, path, dir, "127.0.0.1", 0, nil); err != nil {
		return nil, err
	}
	for _, o := range ones {
		progress("starting %s", o.name)
		r, err := a.start(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", o.name, err)
		}
		a.ones = append(a.ones, r)
	}
	return a, nil
}

// start starts one contender.
func (a *all) start(ctx context.Context, o one) (_ *running, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &running{one: o}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.receiver, err = newReceiver(); err != nil {
		return nil, err
	}
	args := []string{"-registry=" + a.consul.Addr, "-service=bench." + o.name}
	if o.spans > 0 {
		args = append(args, "-spans="+r.receiver.conn.LocalAddr().String())
	}
	log := filepath.Join(a.dir, o.name)
	bin := filepath.Join(a.dir, o.program)
	if o.pair {
		r.server, err = a.startPair(ctx, r, log+"-server.log")
	} else if r.server, err = backend.Start(o.name, log+"-server.log", backend.Environ(), bin, slices.Concat([]string{"server"}, args, o.server)...); err == nil {
		var address string
		address, err = ready(ctx, r.server)
		args = append(args, "-address="+address)
	}
	if err != nil {
		return nil, err
	}
	r.client, err = startClient(log+"-client.log", bin, slices.Concat([]string{"client"}, args, o.client)...)
	return r, err
}

// startPair starts srv, as a user does, and waits until it is registered.
func (a *all) startPair(ctx context.Context, r *running, log string) (*backend.Process, error) {
	env := "JAEGER_DISABLED=" + fmt.Sprint(r.spans == 0)
	p, err := backend.Start("srv", log, backend.Environ(env), filepath.Join(a.dir, "srv"),
		"--server_name=bench."+r.name, "--server_address=127.0.0.1:0",
		"--registry_address="+a.consul.Addr, "--jaeger_address="+r.receiver.conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	if _, err := a.consul.Nodes(ctx, "bench."+r.name, 1); err != nil {
		_ = p.Stop(syscall.SIGKILL)
		return nil, err
	}
	return p, nil
}

var readyLine = regexp.MustCompile(`(?m)^` + contender.Ready + `(.*)$`)

// ready waits until a contender's server is ready and returns its address.
func ready(ctx context.Context, p *backend.Process) (string, error) {
	if err := p.WaitLog(ctx, readyLine, 1); err != nil {
		return "", err
	}
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return "", err
	}
	return string(readyLine.FindSubmatch(log)[1]), nil
}

// client is a contender's client process.
type client struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	log string // path of what it says on stderr
}

func startClient(log, path string, args ...string) (*client, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own
	cmd := exec.Command(path, args...)
	cmd.Env = backend.Environ()
	cmd.Stderr = f
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &client{cmd: cmd, in: in, out: json.NewDecoder(out), log: log}, nil
}

// load has the client make calls. One that hangs is killed.
func (c *client) load(l contender.Load) (contender.Result, error) {
	hangs := time.AfterFunc(l.For+patience, func() { _ = c.cmd.Process.Kill() })
	defer hangs.Stop()
	var r contender.Result
	err := json.NewEncoder(c.in).Encode(l)
	if err == nil {
		err = c.out.Decode(&r)
	}
	if err != nil {
		said, _ := os.ReadFile(c.log)
		return r, fmt.Errorf("its client: %w; it said:\n%s", err, said)
	}
	if r.Failed > 0 {
		return r, fmt.Errorf("%d of %d calls by %d callers failed, the first with: %s", r.Failed, r.Failed+r.Calls, l.Callers, r.Err)
	}
	return r, nil
}

// stop ends the client, which sends its last spans.
func (c *client) stop() error {
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// sample is what was measured at one point in one round.
type sample struct {
	perSecond float64 // calls
	p50, p99  float64 // ms
	cpu       float64 // seconds of both processes for 100,000 calls
	mallocs   float64 // objects that the client allocated for a call
}

// point is where a contender is measured.
type point struct {
	name    string
	callers int
}

// results are the samples of each point, one for each round.
type results map[point][]sample

// measure measures every point in each round, so that what changes in the machine
// meanwhile changes for all. Every other round goes backwards.
func (a *all) measure(ctx context.Context, p plan) (results, error) {
	points := a.points()
	all := results{}
	for round := range p.Rounds {
		progress("round %d of %d", round+1, p.Rounds)
		for _, at := range points {
			if ctx.Err() != nil {
				return nil, errors.New("interrupted")
			}
			s, err := a.find(at.name).measure(at.callers, p)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", at.name, err)
			}
			all[at] = append(all[at], s)
		}
		slices.Reverse(points)
	}
	return all, nil
}

// points returns all points, contenders next to each other that are compared.
func (a *all) points() []point {
	var points []point
	for _, callers := range many {
		for _, r := range a.ones {
			if slices.Contains(r.callers, callers) {
				points = append(points, point{r.name, callers})
			}
		}
	}
	return points
}

func (a *all) find(name string) *running {
	return a.ones[slices.IndexFunc(a.ones, func(r *running) bool { return r.name == name })]
}

// measure has the client make calls, and again after a warm-up.
func (r *running) measure(callers int, p plan) (sample, error) {
	warmup, err := r.client.load(contender.Load{Callers: callers, For: p.Warmup})
	if err != nil {
		return sample{}, err
	}
	before, err := r.cpu()
	if err != nil {
		return sample{}, err
	}
	result, err := r.client.load(contender.Load{Callers: callers, For: p.Measure})
	if err != nil {
		return sample{}, err
	}
	after, err := r.cpu()
	r.calls += warmup.Calls + result.Calls
	calls := float64(result.Calls)
	return sample{
		perSecond: calls / result.Elapsed.Seconds(),
		p50:       result.P50.Seconds() * 1000,
		p99:       result.P99.Seconds() * 1000,
		cpu:       (after - before) / calls * 100_000,
		mallocs:   float64(result.Mallocs) / calls,
	}, err
}

// cpu returns the seconds that both processes have used so far, to a hundredth
// each.
func (r *running) cpu() (float64, error) {
	sum := 0.0
	for _, pid := range []int{r.server.Pid(), r.client.cmd.Process.Pid} {
		p, err := procfs.NewProc(pid)
		if err != nil {
			return 0, err
		}
		stat, err := p.Stat()
		if err != nil {
			return 0, err
		}
		sum += stat.CPUTime()
	}
	return sum, nil
}

// peak returns how many bytes of memory a process had resident at most.
func peak(pid int) (uint64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	status, err := p.NewStatus()
	return status.VmHWM, err
}

// oneShot runs the pair's client n times, which makes one call, and returns from
// start to exit in milliseconds.
func (a *all) oneShot(ctx context.Context, n int) ([]float64, error) {
	r, err := newReceiver()
	if err != nil {
		return nil, err
	}
	defer r.conn.Close()
	jaeger := "--jaeger_address=" + r.conn.LocalAddr().String()
	srv, err := backend.Start("srv", filepath.Join(a.dir, "srv.log"), backend.Environ(), filepath.Join(a.dir, "srv"),
		"--registry_address="+a.consul.Addr, "--server_address=127.0.0.1:0", jaeger)
	if err != nil {
		return nil, err
	}
	defer func() { _ = srv.Stop(syscall.SIGTERM) }()
	nodesCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := a.consul.Nodes(nodesCtx, serviceName, 1); err != nil {
		return nil, err
	}
	var took []float64
	for range n {
		cmd := exec.CommandContext(ctx, filepath.Join(a.dir, "client"), "--registry_address="+a.consul.Addr, jaeger)
		cmd.Env = backend.Environ()
		start := time.Now()
		out, err := cmd.Output()
		took = append(took, time.Since(start).Seconds()*1000)
		if err != nil {
			return nil, fmt.Errorf("a client that makes one call: %w", err)
		}
		if got := string(out); got != "Hello John\n" {
			return nil, fmt.Errorf("a client that makes one call printed %q", got)
		}
	}
	return took, nil
}

// stop stops everything that runs.
func (a *all) stop() {
	for _, r := range a.ones {
		_ = r.stop()
	}
	if a.consul != nil {
		_ = a.consul.Stop(syscall.SIGTERM)
	}
}

// stop stops both processes, the client first.
func (r *running) stop() error {
	var err error
	if r.client != nil {
		err = r.client.stop()
	}
	if r.server != nil {
		err = errors.Join(err, r.server.Stop(syscall.SIGTERM))
	}
	return err
}

// minSpans is the part of the spans that has to arrive. UDP may lose some.
const minSpans = 0.95

// end stops the contenders and returns what is known of each only then. Too few
// spans are an error.
func (a *all) end() (map[string]ended, error) {
	ends := map[string]ended{}
	for ; len(a.ones) > 0; a.ones = a.ones[1:] {
		r := a.ones[0]
		server, err := peak(r.server.Pid())
		if err != nil {
			return nil, err
		}
		client, err := peak(r.client.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		if err := r.stop(); err != nil {
			return nil, fmt.Errorf("stopping %s: %w", r.name, err)
		}
		spans := float64(r.receiver.count()) / float64(r.calls)
		if spans < minSpans*float64(r.spans) && !r.loses {
			return nil, fmt.Errorf("%s sent %.2f spans for each of %d calls instead of %d", r.name, spans, r.calls, r.spans)
		}
		ends[r.name] = ended{ServerMB: float64(server) / 1e6, ClientMB: float64(client) / 1e6, Spans: spans}
	}
	return ends, nil
}

// ended is what is known of a contender in the end.
type ended struct {
	ServerMB, ClientMB float64 // resident at most, in megabytes
	Spans              float64 // for each call
}
