// Package backend runs processes for the demo and the end-to-end tests: Consul, Jaeger, and the
// pair. Each process writes to a log file. StartConsul and StartJaeger wait until the process is
// ready, and Stop waits until the process has exited.
package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// pollInterval is the time between two checks of a condition.
	pollInterval = 20 * time.Millisecond
	// stopTimeout is how long a process may take to exit after a signal.
	stopTimeout = 20 * time.Second
)

// Process is a running program.
type Process struct {
	Name string // its name in errors
	Log  string // path of the file with its stdout and stderr

	pid    int
	signal func(os.Signal) error // sends a signal to the process, or to its process group
	done   chan struct{}         // closed when the process has exited
	err    error                 // from exec.Cmd.Wait; valid once done is closed
}

// Start starts the program at path with args, in the environment env. The process appends its
// output to the file log, and its current directory is the directory of log. Start does not wait
// until the process is ready.
func Start(name, log string, env []string, path string, args ...string) (*Process, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Dir = filepath.Dir(log)
	return start(name, log, cmd)
}

// start starts cmd with its output appended to log.
func start(name, log string, cmd *exec.Cmd) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own file descriptor
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{Name: name, Log: log, pid: cmd.Process.Pid, signal: cmd.Process.Signal, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Environ returns the environment of this process, without the variables that configure the pair,
// Consul or Jaeger, and with the variables in env.
func Environ(env ...string) []string {
	all := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.ContainsFunc([]string{"BASIS_", "MICRO_", "CONSUL_", "JAEGER_"}, func(prefix string) bool {
			return strings.HasPrefix(variable, prefix)
		})
	})
	return append(all, env...)
}

// Stop sends the signal sig and waits until the process has exited. It returns the error of the
// process, as exec.Cmd.Wait does. If the process does not exit within 20 s, Stop kills it and
// returns an error.
func (p *Process) Stop(sig syscall.Signal) error {
	if err := p.signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.Name, err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(stopTimeout):
		_ = p.signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end within %v of %v and was killed", p.Name, stopTimeout, sig)
	}
}

// Ended reports whether the process has exited.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// WaitLog waits until the log has n matches of re. It returns an error if the process exits or ctx
// ends first.
func (p *Process) WaitLog(ctx context.Context, re *regexp.Regexp, n int) error {
	return p.until(ctx, fmt.Sprintf("%d matches of %v in its log", n, re), func() bool {
		log, err := os.ReadFile(p.Log)
		return err == nil && len(re.FindAllIndex(log, n)) >= n
	})
}

// Wait waits until the process has exited, and returns the error of the process, as exec.Cmd.Wait
// does. It returns another error if ctx ends first.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s did not end in time; its log ends:\n%s", p.Name, p.Tail())
	}
}

// waitHTTP waits until a GET of url has the status 200.
func (p *Process) waitHTTP(ctx context.Context, url string) error {
	return p.until(ctx, "an answer from "+url, func() bool {
		_, err := Get(ctx, url)
		return err == nil
	})
}

// until waits until condition returns true. It returns an error if the process exits or ctx ends
// first. label is the name of the condition for this error.
func (p *Process) until(ctx context.Context, label string, condition func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if condition() {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			if condition() { // the last output of the process may have made the condition true
				return nil
			}
			return fmt.Errorf("%s ended (%v) before there was %s; its log ends:\n%s", p.Name, p.err, label, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s in time; its log ends:\n%s", p.Name, label, p.Tail())
		}
	}
}

// Tail returns the last 15 lines of the log, or the error of reading the log.
func (p *Process) Tail() []byte {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}

// Get returns the body of a GET of url. A status other than 200 is an error. The time limit is 5 s.
func Get(ctx context.Context, url string) ([]byte, error) {
	return get(ctx, http.DefaultClient, url, nil)
}

// get does the same as Get, but uses client, and sends header with the request.
func get(ctx context.Context, client *http.Client, url string, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	rsp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer rsp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(rsp.Body); err != nil {
		return nil, fmt.Errorf("reading %s: %w", url, err)
	}
	if rsp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, rsp.Status, bytes.TrimSpace(body.Bytes()))
	}
	return body.Bytes(), nil
}

// Pid returns the ID of the process.
func (p *Process) Pid() int { return p.pid }
