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
	"strings"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/internal/gctuning"
)

// patience is the time limit for a process to become ready. The time limit for the calls of a load
// is Load.For plus patience.
const patience = 30 * time.Second

// testbed has the running contenders and the Consul that they share.
type testbed struct {
	dir     string // directory of the binaries
	logs    string // directory of the logs of this start
	consul  *backend.Consul
	running []*running
}

// running is a contender whose server and client run. Both processes are idle while other
// contenders are measured.
type running struct {
	entry
	server   *backend.Process
	client   *client
	args     []string // of the client
	address  string   // of the server; empty if the server is srv
	receiver receiver
	calls    int // successful calls, including the calls of warm-ups
}

// start starts Consul and all entries.
func start(ctx context.Context, dir string, entries []entry) (_ *testbed, err error) {
	path, err := binaries.Consul.Find()
	if errors.Is(err, binaries.ErrMissing) {
		return nil, fmt.Errorf("%w; build it with \"make tools\"", err)
	}
	if err != nil {
		return nil, err
	}
	b := &testbed{dir: dir}
	if b.logs, err = os.MkdirTemp(dir, "start-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	startCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if b.consul, err = backend.StartConsul(startCtx, path, b.logs, "127.0.0.1", backend.ConsulPorts{}, nil); err != nil {
		return nil, err
	}
	if err := checkFiles(entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		r, err := b.start(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", e.name, err)
		}
		b.running = append(b.running, r)
	}
	return b, nil
}

// start starts one contender.
func (b *testbed) start(ctx context.Context, e entry) (_ *running, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &running{entry: e}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.receiver, err = newReceiver(e); err != nil {
		return nil, err
	}
	args := []string{"-registry=" + b.consul.Addr, "-service=" + service(e), "-host=" + host(e), fmt.Sprintf("-shipped=%t", e.shipped)}
	if e.spans > 0 {
		args = append(args, "-spans="+r.receiver.address())
	}
	log := filepath.Join(b.logs, e.name)
	bin := filepath.Join(b.dir, e.program)
	if e.pair {
		r.server, err = b.startPair(ctx, r, log+"-server.log")
	} else if r.server, err = backend.Start(e.name, log+"-server.log", environ(e), bin, slices.Concat([]string{"server"}, args, e.server)...); err == nil {
		r.address, err = ready(ctx, r.server)
		args = append(args, "-address="+r.address)
	}
	if err != nil {
		return nil, err
	}
	var nodes []string // addresses
	if e.nodes > 0 {
		if nodes, err = b.register(ctx, r); err != nil {
			return nil, err
		}
		args = append(args, "-service="+nodesOf(e), "-address="+strings.Join(nodes, ",")) // these flags override the earlier flags -service and -address
	}
	r.args = slices.Concat([]string{"client"}, args, e.client)
	r.client, err = startClient(environ(e), log+"-client.log", bin, r.args...)
	if err == nil && e.nodes > 0 {
		err = r.connect(nodes)
	}
	return r, err
}

// host returns the address that the server of a contender listens on.
func host(e entry) string {
	if e.nodes > 0 {
		return "0.0.0.0" // includes all addresses of 127.0.0.0/8
	}
	return "127.0.0.1"
}

// environ returns the environment of both programs of a contender, with the additional variables
// env. With equal settings, all programs have the pair's GOGC. OpenTelemetry's queue always has the
// same size as the pair's queue, so that OpenTelemetry drops no spans.
func environ(e entry, env ...string) []string {
	gogc := fmt.Sprint(gctuning.Percent)
	if e.shipped {
		gogc = "" // without GOGC, the pair sets its own value, and other programs have Go's default
	}
	return backend.Environ(append(env, "GOGC="+gogc, "GOMEMLIMIT=", "OTEL_BSP_MAX_QUEUE_SIZE=10000")...)
}

// startPair starts the program srv with its own flags, and waits until srv is registered.
func (b *testbed) startPair(ctx context.Context, r *running, log string) (*backend.Process, error) {
	p, err := backend.Start("srv", log, environ(r.entry, "JAEGER_DISABLED="+fmt.Sprint(r.spans == 0)), filepath.Join(b.dir, "srv"), append([]string{
		"--server_name=" + service(r.entry), "--server_address=" + host(r.entry) + ":0",
		"--registry_address=" + b.consul.Addr, "--jaeger_address=" + r.receiver.address(),
	}, r.entry.server...)...)
	if err != nil {
		return nil, err
	}
	if _, err := b.consul.Nodes(ctx, service(r.entry), 1); err != nil {
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
	log string // path of the file with its stderr
}

func startClient(env []string, log, path string, args ...string) (*client, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own file descriptor
	cmd := exec.Command(path, args...)
	cmd.Env = env
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

// load sends l to the client. The client makes the calls of l, and load returns the result. If a
// call fails, load returns an error. If the result takes longer than l.For plus patience, load
// kills the client.
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

// stop closes stdin of the client and waits until the client exits. The client sends its last spans
// before it exits.
func (c *client) stop() error {
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// stop stops all running contenders, and Consul.
func (b *testbed) stop() {
	for _, r := range b.running {
		_ = r.stop()
	}
	if b.consul != nil {
		_ = b.consul.Stop(syscall.SIGTERM)
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
