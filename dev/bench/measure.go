package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/backend"
)

// serviceName is that of the pair's own service, which a client as users run it
// calls.
const serviceName = "go.micro.srv.basis"

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

// results are the samples of each point, one for each round, of one start after another.
type results map[point][]sample

// measure measures every point in each round, so that what changes in the machine
// meanwhile changes for all, and adds that to all. Every other round goes backwards.
func (b *testbed) measure(ctx context.Context, p plan, all results) error {
	points := b.points()
	for round := range p.Rounds {
		progress("round %d of %d", round+1, p.Rounds)
		for _, at := range points {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			s, err := b.find(at.name).measure(at.callers, p)
			if err != nil {
				return fmt.Errorf("%s: %w", at.name, err)
			}
			all[at] = append(all[at], s)
		}
		slices.Reverse(points)
	}
	return nil
}

// points returns all points, contenders next to each other that are compared.
func (b *testbed) points() []point {
	var points []point
	for _, callers := range many {
		for _, r := range b.running {
			if slices.Contains(r.callers, callers) {
				points = append(points, point{r.name, callers})
			}
		}
	}
	return points
}

func (b *testbed) find(name string) *running {
	return b.running[slices.IndexFunc(b.running, func(r *running) bool { return r.name == name })]
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

// oneShots runs, n times in turn, the pair's client as its users run it and the client of each
// of peers, all of which make one call. It adds the milliseconds from start to exit to took, by
// name; the pair's own is "client".
func (b *testbed) oneShots(ctx context.Context, n int, took map[string][]float64) error {
	r, err := newAgent()
	if err != nil {
		return err
	}
	defer r.conn.Close()
	jaeger := "--jaeger_address=" + r.address()
	asShipped := entry{shipped: true}
	srv, err := backend.Start("srv", filepath.Join(b.logs, "srv.log"), environ(asShipped), filepath.Join(b.dir, "srv"),
		"--registry_address="+b.consul.Addr, "--server_address=127.0.0.1:0", jaeger)
	if err != nil {
		return err
	}
	defer func() { _ = srv.Stop(syscall.SIGTERM) }()
	nodesCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := b.consul.Nodes(nodesCtx, serviceName, 1); err != nil {
		return err
	}
	load, err := json.Marshal(contender.Load{Callers: 1})
	if err != nil {
		return err
	}
	for range n {
		cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "client"), "--registry_address="+b.consul.Addr, jaeger)
		cmd.Env = environ(asShipped)
		start := time.Now()
		out, err := cmd.Output()
		took["client"] = append(took["client"], time.Since(start).Seconds()*1000)
		if err != nil {
			return fmt.Errorf("a client that makes one call: %w", err)
		}
		if got := string(out); got != "Hello John\n" {
			return fmt.Errorf("a client that makes one call printed %q", got)
		}
		for _, e := range peers {
			r := b.find(e.name)
			cmd := exec.CommandContext(ctx, filepath.Join(b.dir, e.program), r.args...)
			cmd.Env, cmd.Stdin = environ(e), bytes.NewReader(load)
			start := time.Now()
			out, err := cmd.Output()
			took[e.name] = append(took[e.name], time.Since(start).Seconds()*1000)
			var result contender.Result
			if err == nil {
				err = json.Unmarshal(out, &result)
			}
			if err == nil && result.Failed > 0 {
				err = errors.New(result.Err)
			}
			if err != nil {
				return fmt.Errorf("a client of %s that makes one call: %w", e.name, err)
			}
			r.calls += result.Calls
		}
	}
	return nil
}

// minSpans is the part of the spans that has to arrive. UDP may lose some.
const minSpans = 0.95

// end stops the contenders and adds what is known of each only then to ends. Too few
// spans are an error.
func (b *testbed) end(ends map[string]ended) error {
	for ; len(b.running) > 0; b.running = b.running[1:] {
		r := b.running[0]
		server, err := peak(r.server.Pid())
		if err != nil {
			return err
		}
		client, err := peak(r.client.cmd.Process.Pid)
		if err != nil {
			return err
		}
		if err := r.stop(); err != nil {
			return fmt.Errorf("stopping %s: %w", r.name, err)
		}
		spans := r.receiver.count()
		if float64(spans) < minSpans*float64(r.spans*r.calls) && !r.loses {
			return fmt.Errorf("%s sent %d spans for %d calls instead of %d for each", r.name, spans, r.calls, r.spans)
		}
		e := ends[r.name]
		e.ServerMB = max(e.ServerMB, float64(server)/1e6)
		e.ClientMB = max(e.ClientMB, float64(client)/1e6)
		e.calls += r.calls
		e.spans += spans
		ends[r.name] = e
	}
	return nil
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

// ended is what is known of a contender in the end.
type ended struct {
	ServerMB, ClientMB float64 // resident at most, in megabytes, after any start
	calls, spans       int     // of all starts
}

// Spans returns how many there were for each call.
func (e ended) Spans() float64 { return float64(e.spans) / float64(e.calls) }
