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

// step is one of the article's.
type step struct {
	title   string
	lookFor string
	run     func(context.Context, *demo) error
}

var steps = []step{
	{
		"Hello: a client finds the service and calls it",
		`the answer "Hello John".`,
		hello,
	},
	{
		"Round robin: calls go to two servers in turn",
		`ten answers, five calls per node, and five "Yoooo! I received it" in each server's log.`,
		roundRobin,
	},
	{
		"Limiter: one call a second, of a server that takes a second",
		"three callers at once, whose answers take about one, two and three seconds.",
		limiter,
	},
	{
		"Breaker: servers that are too slow, and then are not",
		"calls that time out; the open circuit, which refuses at once (the 0.1 s are the limiter's); and answers again, after faster servers have come and a sleep window has passed.",
		breaker,
	},
	{
		"Tracing: one call, two services, four spans",
		"two spans of the client and two of the server that answered, all of one trace, each below the one that caused it; the bars show when.",
		tracing,
	},
}

// runClient runs the client, shows what it prints, and returns it.
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
	out, _, err := runClient(ctx, d)
	if err != nil {
		return err
	}
	if out != "Hello John\n" {
		return fmt.Errorf("the answer is %q", out)
	}
	return nil
}

func roundRobin(ctx context.Context, d *demo) error {
	before, err := d.received()
	if err != nil {
		return err
	}
	out, _, err := runClient(ctx, d, "--requests=10", "--rate_limit=0")
	if err != nil {
		return err
	}
	if n := strings.Count(out, "Hello John\n"); n != 10 {
		return fmt.Errorf("%d answers, not 10", n)
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
	return nil
}

// received counts the calls in each server's log.
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
			return fmt.Errorf("an answer took %v, not about %v", c.Latency, want)
		}
	}
	return nil
}

// breaker runs on the slow servers of the step before.
func breaker(ctx context.Context, d *demo) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := d.start("client", "--requests=0", "--rate_limit=10", "--hystrix_timeout=300ms", "--hystrix_sleep_window=1s", "--verbose")
	if err != nil {
		return err
	}
	if err := client.WaitLog(ctx, regexp.MustCompile(`outcome="hystrix: circuit open"`), 3); err != nil {
		return err
	}
	if err := d.serve(ctx); err != nil {
		return err
	}
	if err := client.WaitLog(ctx, regexp.MustCompile(`outcome="ok"`), 5); err != nil {
		return err
	}
	_ = client.Stop(syscall.SIGINT) // its status is 1, since calls failed
	log, err := os.ReadFile(client.Log)
	if err != nil {
		return err
	}
	calls, err := load.ParseLines(string(log))
	if err != nil {
		return err
	}
	return showRuns(calls)
}

// showRuns prints calls with the same outcome as one line, and checks that there
// were all that was announced, and that refusals were fast.
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
			return fmt.Errorf("a refusal took %v", slowest)
		}
	}
	return nil
}

func tracing(ctx context.Context, d *demo) error {
	d.env, d.logging = append(d.env, d.logging...), nil // the client's spans too
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
	if d.jaeger == nil {
		return d.loggedSpans(ctx, calls[0].Trace, notes)
	}

	spans, err := timeline.Await(ctx, d.jaeger.URL, calls[0].Trace, 4)
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
	if len(spans) != 4 || len(services) != 2 {
		return fmt.Errorf("%d spans of %d services, not 4 of 2", len(spans), len(services))
	}
	fmt.Printf("   In the UI:  %s/trace/%s\n", d.jaeger.URL, calls[0].Trace)
	fmt.Printf("   In the API: %s/api/traces/%s?prettyPrint=true\n", d.jaeger.URL, calls[0].Trace)
	return nil
}

// loggedSpans wants the spans of a trace in the logs, two of the client and two
// of the server that answered, each the parent of the next.
func (d *demo) loggedSpans(ctx context.Context, id, notes string) error {
	ofTrace := regexp.MustCompile(`Reporting span ` + id + `:([0-9a-f]+):([0-9a-f]+):`)
	spans := ofTrace.FindAllStringSubmatch(notes, -1)
	if len(spans) != 2 {
		return fmt.Errorf("the client logged %d spans of trace %s, not 2", len(spans), id)
	}
	server, err := d.serversSpans(ctx, ofTrace)
	if err != nil {
		return err
	}
	children := map[string]string{} // by parent
	for _, s := range append(spans, server...) {
		children[s[2]] = s[1]
	}
	parent := "0000000000000000"
	for range 4 {
		child, ok := children[parent]
		if !ok {
			return fmt.Errorf("no span of trace %s has the parent %s", id, parent)
		}
		parent = child
	}
	return nil
}

// serversSpans waits until a server has logged two spans, and shows them.
func (d *demo) serversSpans(ctx context.Context, ofTrace *regexp.Regexp) ([][]string, error) {
	for {
		for _, p := range d.servers {
			log, err := os.ReadFile(p.Log)
			if err != nil {
				return nil, err
			}
			if spans := ofTrace.FindAllStringSubmatch(string(log), -1); len(spans) == 2 {
				for _, s := range spans {
					fmt.Printf("   | %s: %s\n", p.Name, s[0])
				}
				return spans, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("no server logged two matches of %v", ofTrace)
		}
	}
}
