// Package report tells of calls as they are made, and sums them up.
package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/gomicroexample/basis/client/calls"
	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/internal/oneline"
)

// Report writes answers to one stream and everything else to another. It is
// not safe for concurrent use.
type Report struct {
	answers, notes io.Writer
	verbose        bool
	progress       *mpb.Progress
	bar            *mpb.Bar // nil when there is none

	start     time.Time
	err       error // in writing answers
	made      int
	failures  map[string]int          // by kind
	nodes     map[string]int          // by address
	latencies *hdrhistogram.Histogram // of successful calls, in microseconds
}

// maxLatency is the longest that is told apart; longer ones count as this.
const maxLatency = time.Hour

// callFormat is the line of a call, which Add writes and Parse reads.
const callFormat = "call=%d outcome=%q latency=%s node=%s trace=%s start=%s waited=%s"

// startLayout is RFC 3339, to the millisecond.
const startLayout = "2006-01-02T15:04:05.000Z07:00"

// New returns a report of requests calls (0: without end). Answers go to
// stdout, a line each. To stderr go a line per failed call, or per call if
// verbose, and on a terminal a progress bar where there is more than one call
// and no line for each.
func New(requests int, verbose bool) *Report {
	r := newReport(os.Stdout, os.Stderr, verbose)
	if requests != 1 && !verbose && isTerminal(os.Stderr) {
		r.showProgress(requests)
	}
	return r
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// showProgress draws a bar on stderr. What is written to that terminal
// meanwhile goes through the bar's container, which puts it above the bar.
func (r *Report) showProgress(requests int) {
	r.progress = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithRefreshRate(100*time.Millisecond))
	r.notes = r.progress
	if isTerminal(os.Stdout) {
		r.answers = r.progress
	}
	style, counter := mpb.BarFillerBuilder(mpb.BarStyle()), decor.CountersNoUnit("%d of %d calls ")
	if requests == 0 {
		style, counter = mpb.NopStyle(), decor.CurrentNoUnit("%d calls ")
	}
	r.bar = r.progress.New(int64(requests), style,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(counter),
		mpb.AppendDecorators(decor.AverageSpeed(0, " %.0f a second "), decor.Elapsed(decor.ET_STYLE_GO)))
}

// hideProgress removes the bar, once what was written above it is on the
// terminal.
func (r *Report) hideProgress() {
	r.bar.Abort(true)
	r.progress.Wait()
	r.bar, r.notes, r.answers = nil, os.Stderr, os.Stdout
}

func newReport(answers, notes io.Writer, verbose bool) *Report {
	return &Report{
		answers: answers, notes: notes, verbose: verbose,
		start:     time.Now(),
		failures:  map[string]int{},
		nodes:     map[string]int{},
		latencies: hdrhistogram.New(1, maxLatency.Microseconds(), 3),
	}
}

// Add tells of one call. What a server and a registry said of it stays on its
// line: what would end that is escaped.
func (r *Report) Add(c calls.Result) {
	c.Answer, c.Node = oneline.Escape(c.Answer), oneline.Escape(c.Node)
	r.made++
	if c.Node != "" {
		r.nodes[c.Node]++
	}
	outcome := "ok"
	if c.Err != nil {
		outcome = failure.Describe(c.Err)
		r.failures[failure.Kind(c.Err)]++
	} else {
		if _, err := fmt.Fprintln(r.answers, c.Answer); err != nil && r.err == nil {
			r.err = fmt.Errorf("writing answers: %w", err)
		}
		_ = r.latencies.RecordValue(min(c.Latency, maxLatency).Microseconds())
	}
	switch {
	case r.verbose:
		fmt.Fprintf(r.notes, callFormat+"\n",
			c.Number, outcome, c.Latency.Round(time.Microsecond), cmp.Or(c.Node, "none"), cmp.Or(c.Trace, "none"),
			c.Start.UTC().Format(startLayout), c.Waited.Round(time.Microsecond))
	case c.Err != nil:
		fmt.Fprintf(r.notes, "client: call %d: %s\n", c.Number, outcome)
	}
	if r.bar != nil {
		r.bar.Increment()
	}
}

// Err returns the first error in writing answers. What was not written is lost.
func (r *Report) Err() error { return r.err }

// Made returns how many calls were added.
func (r *Report) Made() int { return r.made }

// Failed returns how many of them failed.
func (r *Report) Failed() int {
	n := 0
	for _, count := range r.failures {
		n += count
	}
	return n
}

// Sum writes the summary: calls and their rate, failures by kind, latencies of
// the calls that succeeded, and calls per node.
func (r *Report) Sum() {
	if r.bar != nil {
		r.hideProgress()
	}
	took := time.Since(r.start)
	fmt.Fprintf(r.notes, "calls      %d in %v, %.1f a second\n", r.made, took.Round(time.Millisecond), float64(r.made)/took.Seconds())
	fmt.Fprintf(r.notes, "failed     %d\n", r.Failed())
	for _, kind := range slices.Sorted(maps.Keys(r.failures)) {
		fmt.Fprintf(r.notes, "  %-30s %d\n", kind, r.failures[kind])
	}
	if h := r.latencies; h.TotalCount() > 0 {
		us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
		fmt.Fprintf(r.notes, "latency    p50 %v, p99 %v, max %v\n",
			us(h.ValueAtQuantile(50)), us(h.ValueAtQuantile(99)), us(h.Max()))
	}
	fmt.Fprintf(r.notes, "nodes      %d\n", len(r.nodes))
	for _, node := range slices.Sorted(maps.Keys(r.nodes)) {
		fmt.Fprintf(r.notes, "  %-30s %d\n", node, r.nodes[node])
	}
}
