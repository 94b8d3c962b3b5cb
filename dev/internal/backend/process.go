// Package backend runs real processes for the demo and the end-to-end tests:
// Consul, Jaeger, and the pair itself. Each writes to a log file, is waited for
// until it is ready, and is gone when it was stopped.
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
	// pollInterval is how often a condition is looked at.
	pollInterval = 20 * time.Millisecond
	// stopTimeout is how long a process may take to end when told to.
	stopTimeout = 20 * time.Second
)

// Process is a running program.
type Process struct {
	Name string // in errors
	Log  string // path of the file that stdout and stderr go to

	pid    int
	signal func(os.Signal) error // to it, or to its process group
	done   chan struct{}         // closed when it has ended
	err    error                 // how; valid after done
}

// Start runs path with args in the environment env and in the directory of log, the
// file that its output is appended to.
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
	defer f.Close() // the process has its own
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

// Environ returns this process's environment without the variables that set up
// the pair, Consul or Jaeger, and with those in env.
func Environ(env ...string) []string {
	all := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.ContainsFunc([]string{"BASIS_", "MICRO_", "CONSUL_", "JAEGER_"}, func(prefix string) bool {
			return strings.HasPrefix(variable, prefix)
		})
	})
	return append(all, env...)
}

// Stop sends a signal, SIGTERM unless the process is to be killed, and waits
// for the end. The error is that of the process, as from exec.Cmd.Wait; one
// that does not end in time is killed.
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

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// WaitLog waits until n matches of re are in the log.
func (p *Process) WaitLog(ctx context.Context, re *regexp.Regexp, n int) error {
	return p.until(ctx, fmt.Sprintf("%d matches of %v in its log", n, re), func() bool {
		log, err := os.ReadFile(p.Log)
		return err == nil && len(re.FindAllIndex(log, n)) >= n
	})
}

// Wait waits for the end. The error is that of the process, as from exec.Cmd.Wait.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s did not end in time; its log ends:\n%s", p.Name, p.Tail())
	}
}

// waitHTTP waits until a GET of url is answered with 200.
func (p *Process) waitHTTP(ctx context.Context, url string) error {
	return p.until(ctx, "an answer from "+url, func() bool {
		_, err := Get(ctx, url)
		return err == nil
	})
}

// until waits for a condition, which it names in its error. A process that has
// ended will not fulfil it any more.
func (p *Process) until(ctx context.Context, what string, condition func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if condition() {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			if condition() { // its last words
				return nil
			}
			return fmt.Errorf("%s ended (%v) before there was %s; its log ends:\n%s", p.Name, p.err, what, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s in time; its log ends:\n%s", p.Name, what, p.Tail())
		}
	}
}

// Tail returns the end of the log.
func (p *Process) Tail() []byte {
	log, err := os.ReadFile(p.Log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}

// Get returns the body of url. An answer that is not 200 is an error.
func Get(ctx context.Context, url string) ([]byte, error) {
	return get(ctx, http.DefaultClient, url, nil)
}

// get is Get with a client and headers.
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

// Pid returns the process's ID.
func (p *Process) Pid() int { return p.pid }
