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
	"github.com/gomicroexample/basis/internal/verbose"
)

// Report writes answers to one stream and all else to another. It is not safe for
// concurrent use.
type Report struct {
	Made, Failed int   // calls; those that failed were made too
	Err          error // the first in writing answers; what was not written is lost

	answers, notes io.Writer
	verbose        bool
	progress       *mpb.Progress
	bar            *mpb.Bar // nil without progress

	start     time.Time
	failures  map[string]int          // by kind
	nodes     map[string]int          // by address
	latencies *hdrhistogram.Histogram // of successful calls, in microseconds
}

// maxLatency is the longest that is told apart; longer ones count as this.
const maxLatency = time.Hour

// New returns a report of requests calls (0: without end). Answers go to stdout, a line
// each; to stderr go failures, or every call if verbose, a line each, and otherwise, if
// it is a terminal and there are several calls, a progress bar.
func New(requests int, verbose bool) *Report {
	r := newReport(os.Stdout, os.Stderr, verbose)
	if requests != 1 && !verbose && isTerminal(os.Stderr) {
		r.showProgress(requests)
	}
	return r
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

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// showProgress draws a bar on stderr. mpb puts above it what is written meanwhile.
func (r *Report) showProgress(requests int) {
	r.progress = mpb.New(mpb.WithOutput(os.Stderr))
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

// Add tells of one call. What a server and a registry said is escaped, to stay on
// its line.
func (r *Report) Add(c calls.Result) {
	r.Made++
	node := oneline.Escape(c.Node)
	if node != "" {
		r.nodes[node]++
	}
	outcome := "ok"
	if c.Err != nil {
		outcome = failure.Describe(c.Err)
		r.Failed++
		r.failures[failure.Kind(c.Err)]++
	} else {
		if _, err := fmt.Fprintln(r.answers, oneline.Escape(c.Answer)); err != nil && r.Err == nil {
			r.Err = fmt.Errorf("writing answers: %w", err)
		}
		_ = r.latencies.RecordValue(min(c.Latency, maxLatency).Microseconds())
	}
	if r.verbose {
		fmt.Fprintf(r.notes, verbose.Format+"\n",
			c.Number, outcome, c.Latency.Round(time.Microsecond), cmp.Or(node, "none"), cmp.Or(c.Trace, "none"),
			c.Start.UTC().Format("2006-01-02T15:04:05.000Z"), c.Waited.Round(time.Microsecond))
	} else if c.Err != nil {
		fmt.Fprintf(r.notes, "client: call %d: %s\n", c.Number, outcome)
	}
	if r.bar != nil {
		r.bar.Increment()
	}
}

// Sum ends the report with a summary on stderr.
func (r *Report) Sum() {
	if r.bar != nil {
		r.bar.Abort(true)
		r.progress.Wait() // for what was written above the bar
		r.notes = os.Stderr
	}
	took := time.Since(r.start)
	fmt.Fprintf(r.notes, "calls      %d in %v, %.1f a second\n", r.Made, took.Round(time.Millisecond), float64(r.Made)/took.Seconds())
	fmt.Fprintf(r.notes, "failed     %d\n", r.Failed)
	r.count(r.failures)
	if h := r.latencies; h.TotalCount() > 0 {
		us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
		fmt.Fprintf(r.notes, "latency    p50 %v, p99 %v, max %v\n",
			us(h.ValueAtQuantile(50)), us(h.ValueAtQuantile(99)), us(h.Max()))
	}
	fmt.Fprintf(r.notes, "nodes      %d\n", len(r.nodes))
	r.count(r.nodes)
}

// count writes how many calls there were of each.
func (r *Report) count(counts map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(r.notes, "  %-30s %d\n", name, counts[name])
	}
}
