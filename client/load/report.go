package load

import (
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

	"github.com/gomicroexample/basis/client/failure"
	"github.com/gomicroexample/basis/internal/oneline"
)

// Report reports the results of calls. It writes the answers to one stream, and everything else to
// another stream. It is not safe for concurrent use.
type Report struct {
	Made   int   // number of calls, including failed calls
	Failed int   // number of failed calls
	Err    error // first error of writing an answer; the answer is lost

	answers, notes io.Writer
	verbose        bool
	progress       *mpb.Progress
	bar            *mpb.Bar // nil without a progress bar

	start     time.Time
	failures  map[string]int          // number of failed calls by kind of failure
	nodes     map[string]int          // number of calls by address of the node
	latencies *hdrhistogram.Histogram // latencies of successful calls, in microseconds
}

// maxLatency is the longest latency in the summary. A longer latency counts as maxLatency.
const maxLatency = time.Hour

// NewReport returns an empty report. requests is the number of calls to come; 0 means no limit. The
// report writes each answer to stdout, on its own line. If verbose is true, the report writes a
// line for each call to stderr. Otherwise it writes a line for each failed call to stderr. If
// verbose is false, requests is not 1, and stderr is a terminal, the report also draws a progress
// bar on stderr.
func NewReport(requests int, verbose bool) *Report {
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

// showProgress draws a progress bar on stderr. mpb writes all other lines above the bar.
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

// Add reports the result of one call. It escapes line breaks and control characters in text from
// servers and registries, so that the text stays on one line.
func (r *Report) Add(c Result) {
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
		fmt.Fprintln(r.notes, Line{
			Number: c.Number, Outcome: outcome, Latency: c.Latency, Waited: c.Waited, Node: node, Trace: c.Trace, Start: c.Start,
		})
	} else if c.Err != nil {
		fmt.Fprintf(r.notes, "client: call %d: %s\n", c.Number, outcome)
	}
	if r.bar != nil {
		r.bar.Increment()
	}
}

// Summarize ends the report with a summary on stderr.
func (r *Report) Summarize() {
	if r.bar != nil {
		r.bar.Abort(true)
		r.progress.Wait() // waits until the lines above the bar are written
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

// count writes the names in counts, each with its number of calls.
func (r *Report) count(counts map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(r.notes, "  %-30s %d\n", name, counts[name])
	}
}
