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

// serviceName is the name of the pair's own service. The pair's client calls it by default.
const serviceName = "go.micro.srv.basis"

// sample is the measurement of one point in one round.
type sample struct {
	perSecond float64 // calls
	p50, p99  float64 // ms
	cpu       float64 // seconds of both processes for 100,000 calls
	mallocs   float64 // objects that the client allocated per call
}

// point is a contender with a number of concurrent callers.
type point struct {
	name    string
	callers int
}

// results has the samples of each point: one sample for each round, in the order of the starts.
type results map[point][]sample

// measure measures every point once in each of p.Rounds rounds, and appends the sample of each
// point to all[point]. Each round includes every point, so that changes of the machine's speed
// affect all points to the same degree. Every second round has the reverse order of points.
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

// points returns all points. Points with the same number of callers follow each other, because the
// report compares these points.
func (b *testbed) points() []point {
	var points []point
	for _, callers := range allCounts {
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

// measure makes the client run a load to warm up, and then measures a second load.
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

// cpu returns the CPU seconds that both processes together have used. The resolution is 0.01 s per
// process.
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

// oneShots measures clients that make one call and exit: the pair's client with its defaults, and
// the client of each peer. Each of n rounds runs every client once. For each run, oneShots measures
// the time from the start of the client to its exit, in milliseconds, and appends the time to
// took[name]. The name is the name of the contender, or "client" for the pair's client with its
// defaults.
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

// minSpans is the share of spans that must arrive. UDP may lose some spans.
const minSpans = 0.95

// end stops the contenders, and adds the peak memory, the calls and the spans of each contender to
// the map ends. It returns an error if too few spans arrived.
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

// peak returns the peak resident memory of a process, in bytes.
func peak(pid int) (uint64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	status, err := p.NewStatus()
	return status.VmHWM, err
}

// ended has the numbers of a contender that the bench reads once per start, when it stops the
// contender.
type ended struct {
	ServerMB, ClientMB float64 // peak resident memory in megabytes, the largest of all starts
	calls, spans       int     // sums over all starts
}

// Spans returns the number of spans per call.
func (e ended) Spans() float64 { return float64(e.spans) / float64(e.calls) }
