package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
	"github.com/gomicroexample/basis/dev/internal/timeline"
)

// Stage is a running Consul, a running Jaeger and two running servers of the pair, on free ports of
// 127.0.0.1.
type Stage struct {
	Consul  *backend.Consul
	Jaeger  *backend.Jaeger
	dir     string // of the programs and all logs
	running []*backend.Process
}

// Story has the IDs of three traces that Tell created.
type Story struct {
	Waited string // the trace of a call that waits two seconds for the limiter and then half a second for the server
	Failed string // the trace of a call that the breaker cancels after 0.3 s
	Open   string // the trace of a call that the open circuit rejects
}

// Flags of the programs. A server's delay is shorter than the breaker's timeout with the flag
// patient, and longer than the timeout with the flag hasty.
const (
	delay   = "--delay=500ms"
	patient = "--hystrix_timeout=5s"
	hasty   = "--hystrix_timeout=300ms"
)

// registered matches the line that a server logs when it registers.
var registered = regexp.MustCompile("Advertising")

// NewStage builds the pair into dir, and starts Consul, Jaeger and two servers with their logs in
// dir. If Consul or Jaeger is not installed, the error wraps binaries.ErrMissing. Close stops all
// processes.
func NewStage(ctx context.Context, dir string) (*Stage, error) {
	consul, jaeger, err := binaries.FindAll()
	if err != nil {
		return nil, err
	}
	root, err := project.Root()
	if err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./srv", "./client")
	build.Dir = root
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the pair: %w", err)
	}
	s := &Stage{dir: dir}
	if err := s.start(ctx, consul, jaeger); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) start(ctx context.Context, consul, jaeger string) (err error) {
	if s.Consul, err = backend.StartConsul(ctx, consul, s.dir, "127.0.0.1", backend.ConsulPorts{}, nil); err != nil {
		return err
	}
	s.running = append(s.running, s.Consul.Process)
	if s.Jaeger, err = backend.StartJaeger(ctx, jaeger, s.dir, backend.JaegerPorts{}); err != nil {
		return err
	}
	s.running = append(s.running, s.Jaeger.Process)
	for i := range 2 {
		name := fmt.Sprintf("srv-%d", i+1)
		p, err := backend.Start(name, filepath.Join(s.dir, name+".log"), s.env(), filepath.Join(s.dir, "srv"), delay, "--server_address=127.0.0.1:0")
		if err != nil {
			return err
		}
		s.running = append(s.running, p)
		if err := p.WaitLog(ctx, registered, 1); err != nil {
			return err
		}
	}
	_, err = s.Consul.Nodes(ctx, "go.micro.srv.basis", 2)
	return err
}

// env returns the environment of the pair.
func (s *Stage) env() []string {
	return backend.Environ("CONSUL_HTTP_ADDR="+s.Consul.Addr, "JAEGER_ADDRESS="+s.Jaeger.Addr)
}

// Tell makes five calls, and returns when Jaeger has the traces of all five calls. It makes three
// concurrent calls with a limit of one call per second. Then it makes a call that the breaker
// cancels, and a call that the open circuit rejects.
func (s *Stage) Tell(ctx context.Context) (Story, error) {
	calls, err := s.call(ctx, "--requests=3", "--concurrency=3", patient)
	if err != nil {
		return Story{}, err
	}
	failed, err := s.call(ctx, "--requests=2", hasty)
	if err != nil {
		return Story{}, err
	}
	// The client prints the lines about the first three calls in the order of the responses. So the
	// last of these lines is about the call that waited longest.
	story := Story{}
	for _, c := range append(calls, failed...) {
		spans := 4
		switch c.Outcome {
		case "ok":
			story.Waited = c.Trace
		case "hystrix: timeout":
			story.Failed = c.Trace
		case "hystrix: circuit open":
			story.Open = c.Trace
			spans = 2
		}
		if _, err := timeline.Await(ctx, s.Jaeger.URL, c.Trace, spans); err != nil {
			return Story{}, fmt.Errorf("call with the outcome %q: %w", c.Outcome, err)
		}
	}
	if slices.Contains([]string{story.Waited, story.Failed, story.Open}, "") {
		return Story{}, fmt.Errorf("calls with other outcomes than ok, a timeout and an open circuit: %v and %v", calls, failed)
	}
	return story, nil
}

// call runs the client, and returns the lines that the client prints, one for each call. It ignores
// the client's exit status.
func (s *Stage) call(ctx context.Context, args ...string) ([]load.Line, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "client"), append(args, "--verbose", "--wait=30s")...)
	cmd.Env = s.env()
	var notes bytes.Buffer
	cmd.Stderr = &notes
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("running the client: %w", err)
	}
	return load.ParseLines(notes.String())
}

// Close stops all processes of the stage. It stops them in the reverse order of their starts.
func (s *Stage) Close() {
	for _, p := range slices.Backward(s.running) {
		_ = p.Stop(syscall.SIGTERM)
	}
}
