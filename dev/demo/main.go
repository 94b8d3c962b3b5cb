// Command demo runs the article's steps one after another. "make demo" runs it.
//
// The demo builds both programs, starts two servers and runs the client. Before each step, the
// demo prints what to look for. After each step, the demo checks the result of the step. If Consul
// and Jaeger are installed, the demo uses them. Otherwise, the demo uses go-micro's mDNS registry,
// and keeps the traces in its own memory. Jaeger's UI shows the traces in both cases.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/jaegerui"
	"github.com/gomicroexample/basis/dev/internal/project"
	"github.com/gomicroexample/basis/dev/internal/spanstore"
)

// exitInterrupted is the exit status that a shell reports for a command that SIGINT has ended.
const exitInterrupted = 130

// clientName is the service name in the client's spans.
const clientName = "go.micro.client.basis"

// patience is the maximum time to wait for a condition. After this time the step fails.
const patience = 30 * time.Second

func main() {
	os.Exit(run())
}

func run() int {
	keep := flag.Bool("keep", false, "keep everything running until interrupted")
	flag.Parse()

	// Catch SIGPIPE too. Otherwise, in "make demo | head", SIGPIPE would kill the demo when head
	// exits, and the processes that the demo has started would keep running.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	dir, err := os.MkdirTemp("", "basis-demo-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)

	d := &demo{dir: dir}
	defer d.stopAll()
	err = d.show(ctx)
	switch {
	case ctx.Err() != nil:
		fmt.Println("\nInterrupted; stopping what was started.")
		return exitInterrupted
	case err != nil:
		return fail(err)
	}
	fmt.Println("\nEvery step showed what it announced.")
	if !*keep {
		fmt.Println(`The demo now stops what it started, Jaeger's UI too. "make demo KEEP=1" keeps
everything running, so that you can look at the traces in a browser.`)
		return 0
	}
	fmt.Printf(`
Everything keeps running until Ctrl-C. For all traces in Jaeger's UI, open
  %s/search?service=%s
and click on one. The links above lead to single traces.
`, d.jaeger, clientName)
	d.printEnv()
	<-ctx.Done()
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
	return 1
}

// demo is the state of one run of the demo.
type demo struct {
	dir     string             // the directory of the binaries and logs
	env     []string           // environment variables of srv and client, as name=value
	jaeger  string             // URL of Jaeger's API and UI
	memory  *spanstore.Server  // replaces Jaeger; nil if the demo uses Jaeger
	running []*backend.Process // all started processes, in the order of their starts
	servers []*backend.Process // the processes of the field running that are servers
	started int                // number of srv and client processes so far; used in their names
}

func (d *demo) show(ctx context.Context) error {
	fmt.Println("Building srv and client ...")
	root, err := project.Root()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", d.dir+string(filepath.Separator), "./srv", "./client")
	build.Dir = root
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the pair: %w", err)
	}
	if err := d.startBackends(ctx); err != nil {
		return err
	}
	d.printEnv()
	for i, s := range steps {
		fmt.Printf("\n== %d. %s\n", i+1, s.title)
		fmt.Printf("   Look for: %s\n", s.lookFor)
		if err := s.run(ctx, d); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
	}
	return nil
}

// startBackends starts Consul and Jaeger. If one of them is not installed, startBackends selects
// the mDNS registry and starts a spanstore instead.
func (d *demo) startBackends(ctx context.Context) error {
	consul, jaeger, err := binaries.FindAll()
	if err == nil {
		return d.startReal(ctx, consul, jaeger)
	}
	if !errors.Is(err, binaries.ErrMissing) {
		return err
	}
	fmt.Printf(`
Consul and Jaeger are not at hand (%v).
In Consul's place: go-micro's mDNS registry, which is built into the pair.
In Jaeger's place: this demo itself. It receives the spans, keeps them in memory, and
serves Jaeger's own UI. So you see Jaeger's UI over the demo's memory, not a Jaeger.
For the real ones, "make tools" builds both once, in about 20 minutes. Or name
binaries that you have with CONSUL_BIN and JAEGER_BIN.
`, err)
	d.env = []string{"MICRO_REGISTRY=mdns"}
	// If other servers ran on this network, the client would find them over mDNS, and call them
	// too.
	if out, err := d.probe(ctx).CombinedOutput(); err == nil {
		return fmt.Errorf("go.micro.srv.basis answers on this network already, over mDNS: %s; stop it first", out)
	}
	if d.memory, err = spanstore.Start(backend.DefaultJaegerPorts.UI, backend.DefaultJaegerPorts.Spans); err != nil {
		return err
	}
	d.jaeger = d.memory.URL
	d.env = append(d.env, "JAEGER_ADDRESS="+d.memory.Addr, "JAEGER_API="+d.jaeger)
	fmt.Printf("\nJaeger UI: %s\n", orTaken(d.jaeger, backend.DefaultJaegerPorts.UI))
	return jaegerui.Check(ctx, d.jaeger)
}

// orTaken returns url. If the port in url is not the usual port, orTaken appends a note that the
// usual port is taken.
func orTaken(url string, usual int) string {
	if strings.HasSuffix(url, fmt.Sprintf(":%d", usual)) {
		return url
	}
	return fmt.Sprintf("%s (the usual port %d is taken)", url, usual)
}

func (d *demo) startReal(ctx context.Context, consulPath, jaegerPath string) error {
	fmt.Println("Starting Consul and Jaeger ...")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	consul, err := backend.StartConsul(ctx, consulPath, d.dir, "127.0.0.1", backend.DefaultConsulPorts, nil)
	if err != nil {
		return err
	}
	d.running = append(d.running, consul.Process)
	jaeger, err := backend.StartJaeger(ctx, jaegerPath, d.dir, backend.DefaultJaegerPorts)
	if err != nil {
		return err
	}
	d.running = append(d.running, jaeger.Process)
	d.jaeger = jaeger.URL
	d.env = []string{"MICRO_REGISTRY_ADDRESS=" + consul.Addr, "JAEGER_ADDRESS=" + jaeger.Addr, "JAEGER_API=" + jaeger.URL}
	fmt.Printf("Consul UI: %s\nJaeger UI: %s\n",
		orTaken("http://"+consul.Addr, backend.DefaultConsulPorts.HTTP), orTaken(d.jaeger, backend.DefaultJaegerPorts.UI))
	return nil
}

// printEnv prints the variables to set before running srv, client and tools/timeline by hand.
func (d *demo) printEnv() {
	fmt.Println("\nTo run srv and client by hand in this demo, set:")
	for _, e := range d.env {
		fmt.Println("  export", e)
	}
}

// start starts srv or client in the background. The program's output goes to a log file in d.dir.
func (d *demo) start(binary string, args ...string) (*backend.Process, error) {
	d.started++
	name := fmt.Sprintf("%s-%d", binary, d.started)
	fmt.Printf("   $ %s &\n", strings.Join(append([]string{binary}, args...), " "))
	p, err := backend.Start(name, filepath.Join(d.dir, name+".log"), backend.Environ(d.env...), filepath.Join(d.dir, binary), args...)
	if err != nil {
		return nil, err
	}
	d.running = append(d.running, p)
	return p, nil
}

// client returns the command that runs the client.
func (d *demo) client(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, "client"), args...)
	cmd.Env = backend.Environ(d.env...)
	return cmd
}

// probe returns the command that runs the client for calls that do not belong to a step. These
// calls send no spans.
func (d *demo) probe(ctx context.Context, args ...string) *exec.Cmd {
	cmd := d.client(ctx, append([]string{"--name=probe"}, args...)...)
	cmd.Env = append(cmd.Env, "JAEGER_SAMPLER_PARAM=0")
	return cmd
}

// serve stops the running servers, starts two new servers, and waits until the client finds both
// new servers.
func (d *demo) serve(ctx context.Context, args ...string) error {
	for _, p := range d.servers {
		if err := p.Stop(syscall.SIGTERM); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	d.servers = nil
	for range 2 {
		p, err := d.start("srv", args...)
		if err != nil {
			return err
		}
		d.servers = append(d.servers, p)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range d.servers {
		if err := p.WaitLog(ctx, advertising, 1); err != nil {
			return err
		}
	}
	return d.waitForBoth(ctx)
}

// waitForBoth waits until a client's two calls go to two different nodes.
func (d *demo) waitForBoth(ctx context.Context) error {
	for {
		out, err := d.probe(ctx, "--requests=2", "--rate_limit=0", "--hystrix_timeout=10s").CombinedOutput()
		if err == nil && bothNodes.Match(out) {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the client does not find both servers: %v: %s", err, out)
		}
	}
}

// stopAll stops all processes, in the reverse order of their starts.
func (d *demo) stopAll() {
	for i := len(d.running) - 1; i >= 0; i-- {
		_ = d.running[i].Stop(syscall.SIGTERM)
	}
	if d.memory != nil {
		_ = d.memory.Close() // returns an error only if it interrupts a browser's request
	}
}
