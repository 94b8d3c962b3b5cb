package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/timeline"
)

var (
	advertising = regexp.MustCompile(`Advertising`)
	bothNodes   = regexp.MustCompile(`(?m)^nodes +2$`)
	received    = regexp.MustCompile(`Yoooo! I received it`)
)

// step is one of the article's steps.
type step struct {
	title   string
	lookFor string
	run     func(context.Context, *demo) error
}

var steps = []step{
	{
		"Hello: a client finds the service and calls it",
		`the response "Hello John".`,
		hello,
	},
	{
		"Round robin: calls go to two servers in turn",
		`ten responses, five calls per node, and five "Yoooo! I received it" in each server's log.`,
		roundRobin,
	},
	{
		"Limiter: one call per second to a server that takes one second",
		"three concurrent calls, which take about one, two and three seconds.",
		limiter,
	},
	{
		"Breaker: slow servers, and then faster ones",
		"calls that time out; calls that the open circuit rejects at once (the 0.1 s are the wait for the limiter); and successful calls, after faster servers have started and the sleep window has ended. The client's metrics show when the circuit is open, half open for a trial call, and closed.",
		breaker,
	},
	{
		"Tracing: one call, two services, four spans",
		"two spans of the client and two spans of a server in one trace. Each span is below its parent span, and the bars show when each began and ended. The link shows the same trace in Jaeger's UI.",
		tracing,
	},
}

// runClient runs the client, prints the client's output, and returns the output.
func runClient(ctx context.Context, d *demo, args ...string) (stdout, stderr string, err error) {
	fmt.Printf("   $ %s\n", strings.Join(append([]string{"client"}, args...), " "))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := d.client(ctx, args...)
	var out, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &notes
	err = cmd.Run()
	for line := range strings.Lines(out.String() + notes.String()) {
		fmt.Printf("   | %s", line)
	}
	return out.String(), notes.String(), err
}

func hello(ctx context.Context, d *demo) error {
	if err := d.serve(ctx); err != nil {
		return err
	}
	out, notes, err := runClient(ctx, d, "--verbose")
	if err != nil {
		return err
	}
	if out != "Hello John\n" {
		return fmt.Errorf("the response is %q", out)
	}
	calls, err := load.ParseLines(notes)
	if err != nil {
		return err
	}
	return d.link(ctx, "the call", calls[0], wholeTrace)
}

// wholeTrace is the number of spans in the trace of a call that a server answered: two of the
// client and two of the server.
const wholeTrace = 4

// link waits until Jaeger has n spans of the trace of call. Then it prints label, which names the
// call, and the URL of the trace in Jaeger's UI.
func (d *demo) link(ctx context.Context, label string, call load.Line, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := timeline.Await(ctx, d.jaeger, call.Trace, n); err != nil {
		return err
	}
	fmt.Printf("   Trace of %s: %s/trace/%s\n", label, d.jaeger, call.Trace)
	return nil
}

func roundRobin(ctx context.Context, d *demo) error {
	before, err := d.received()
	if err != nil {
		return err
	}
	out, notes, err := runClient(ctx, d, "--requests=10", "--rate_limit=0", "--verbose")
	if err != nil {
		return err
	}
	if n := strings.Count(out, "Hello John\n"); n != 10 {
		return fmt.Errorf("%d responses, not 10", n)
	}
	after, err := d.received()
	if err != nil {
		return err
	}
	for i, p := range d.servers {
		n := after[i] - before[i]
		fmt.Printf("   %s logged %d\n", p.Name, n)
		if n != 5 {
			return fmt.Errorf("%s received %d calls, not 5", p.Name, n)
		}
	}
	calls, err := load.ParseLines(notes)
	if err != nil {
		return err
	}
	for _, c := range calls[:2] {
		if err := d.link(ctx, fmt.Sprintf("call %d", c.Number), c, wholeTrace); err != nil {
			return err
		}
	}
	return nil
}

// received returns, for each server, the number of received calls in the log of the server.
func (d *demo) received() ([]int, error) {
	var counts []int
	for _, p := range d.servers {
		log, err := os.ReadFile(p.Log)
		if err != nil {
			return nil, err
		}
		counts = append(counts, len(received.FindAllIndex(log, -1)))
	}
	return counts, nil
}

func limiter(ctx context.Context, d *demo) error {
	if err := d.serve(ctx, "--delay=1s"); err != nil {
		return err
	}
	_, notes, err := runClient(ctx, d, "--requests=3", "--concurrency=3", "--hystrix_timeout=5s", "--verbose")
	if err != nil {
		return err
	}
	calls, err := load.ParseLines(notes)
	if err != nil {
		return err
	}
	slices.SortFunc(calls, func(a, b load.Line) int { return cmp.Compare(a.Latency, b.Latency) })
	if len(calls) != 3 {
		return fmt.Errorf("%d calls, not 3", len(calls))
	}
	for i, c := range calls {
		want := time.Duration(i+1) * time.Second
		if c.Latency < want-200*time.Millisecond || c.Latency > want+time.Second {
			return fmt.Errorf("a response took %v, not about %v", c.Latency, want)
		}
	}
	return d.link(ctx, "the call that waited longest", calls[2], wholeTrace)
}

// breaker begins with slow servers: the step limiter, which runs before this step, has started
// them.
func breaker(ctx context.Context, d *demo) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := d.start("client", "--requests=0", "--rate_limit=10", "--hystrix_timeout=300ms", "--hystrix_sleep_window=1s", "--metrics_address=127.0.0.1:0", "--verbose")
	if err != nil {
		return err
	}
	circuit, err := watchCircuit(ctx, client)
	if err != nil {
		return err
	}
	if err := client.WaitLog(ctx, regexp.MustCompile(`outcome="hystrix: circuit open"`), 3); err != nil {
		return err
	}
	// Start faster servers only after the metrics have reported a half-open circuit. A trial call
	// to a fast server can begin and end between two requests for the metrics. Then the metrics
	// would never report a half-open circuit.
	if err := circuit.waitHalfOpen(ctx); err != nil {
		return err
	}
	if err := d.serve(ctx); err != nil {
		return err
	}
	if err := client.WaitLog(ctx, regexp.MustCompile(`outcome="ok"`), 5); err != nil {
		return err
	}
	if err := circuit.end(); err != nil {
		return err
	}
	_ = client.Stop(syscall.SIGINT) // exits with status 1, because calls failed
	log, err := os.ReadFile(client.Log)
	if err != nil {
		return err
	}
	calls, err := load.ParseLines(string(log))
	if err != nil {
		return err
	}
	if err := showRuns(calls); err != nil {
		return err
	}
	for _, l := range []struct {
		label, outcome string
		spans          int // number of the client's spans to wait for; the server may send its spans late or never
	}{
		{"a call that timed out", "hystrix: timeout", 2},
		{"a call that the open circuit rejected", "hystrix: circuit open", 2},
	} {
		i := slices.IndexFunc(calls, func(c load.Line) bool { return c.Outcome == l.outcome })
		if err := d.link(ctx, l.label, calls[i], l.spans); err != nil {
			return err
		}
	}
	return nil
}

// showRuns prints one line for each run of consecutive calls with the same outcome. It returns an
// error if one of the announced outcomes is missing, or if a rejected call took over 250 ms.
func showRuns(calls []load.Line) error {
	for _, outcome := range []string{"hystrix: timeout", "hystrix: circuit open", "ok"} {
		if !slices.ContainsFunc(calls, func(c load.Line) bool { return c.Outcome == outcome }) {
			return fmt.Errorf("no call whose outcome is %q", outcome)
		}
	}
	for i := 0; i < len(calls); {
		first, slowest := i, time.Duration(0)
		for ; i < len(calls) && calls[i].Outcome == calls[first].Outcome; i++ {
			slowest = max(slowest, calls[i].Latency)
		}
		fmt.Printf("   | %3d calls: %-24s at most %v\n", i-first, calls[first].Outcome, slowest.Round(time.Microsecond))
		if calls[first].Outcome == "hystrix: circuit open" && slowest > 250*time.Millisecond {
			return fmt.Errorf("a rejected call took %v", slowest)
		}
	}
	return nil
}

func tracing(ctx context.Context, d *demo) error {
	_, notes, err := runClient(ctx, d, "--name=bob", "--verbose")
	if err != nil {
		return err
	}
	calls, err := load.ParseLines(notes)
	if err != nil {
		return err
	}
	if len(calls) != 1 {
		return fmt.Errorf("%d calls, not 1", len(calls))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	spans, err := timeline.Await(ctx, d.jaeger, calls[0].Trace, wholeTrace)
	if err != nil {
		return err
	}
	for line := range strings.Lines(timeline.Draw(spans, timeline.DefaultWidth)) {
		fmt.Printf("   | %s", line)
	}
	services := map[string]bool{}
	parent := ""
	for _, s := range spans {
		if s.Parent != parent {
			return fmt.Errorf("the parent of span %s is %q, not %q", s.Operation, s.Parent, parent)
		}
		parent = s.Operation
		services[s.Service] = true
	}
	if len(spans) != wholeTrace || len(services) != 2 {
		return fmt.Errorf("%d spans of %d services, not %d of 2", len(spans), len(services), wholeTrace)
	}
	if err := d.link(ctx, "the call", calls[0], wholeTrace); err != nil {
		return err
	}
	fmt.Printf("   In the API: %s/api/traces/%s?prettyPrint=true\n", d.jaeger, calls[0].Trace)
	return nil
}
