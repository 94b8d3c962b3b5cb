package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
	"github.com/gomicroexample/basis/tracer"
)

// required makes a Consul that is missing an error.
var required = flag.Bool("required", false, "fail where Consul is missing, instead of skipping")

// All of it, for a moment.
func TestBench(t *testing.T) {
	if _, err := binaries.Consul.Find(); errors.Is(err, binaries.ErrMissing) && !*required {
		t.Skipf("%v; \"make tools\" builds it", err)
	}
	moment := plan{Starts: 2, Rounds: 1, Warmup: time.Millisecond, Measure: 50 * time.Millisecond, OneShot: 1, Builds: 1}
	doc, err := bench(t.Context(), moment)
	require.NoError(t, err)
	text := string(doc)
	number := `\d+(\.\d+)? \(\d+\.\d+\) \| `
	for _, name := range []string{"limit", "basis", "basis-bare", "article", "gokit", "kratos"} {
		require.Regexp(t, `(?s)(\| .`+name+`. \| `+number+`.*){3}`, text)
	}
	for _, name := range []string{`\+roundrobin`, `\+limiter`, `\+breaker`, `\+opentracing`, "limit-50", "basis-10", "basis-50"} {
		require.Regexp(t, `(?m)^\| .`+name+`. \| (`+number+`){4}`, text)
	}
	for _, name := range []string{"limit", `\+roundrobin`, "basis"} {
		spread := `\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\) \| `
		require.Regexp(t, `(?m)^\| 16 \| 1000 \| .`+name+`. \| \d+\.\d+ \| \d+\.\d \| `+spread+spread[:len(spread)-1]+`$`, text)
	}
	require.Regexp(t, `(?m)^\| .basis. \| [1-9]\d*\.\d \| [1-9]\d*\.\d \| (4\.00|3\.9\d) \|$`, text)
	require.Regexp(t, `(?m)^\| .limit. \| [1-9]\d*\.\d \| [1-9]\d*\.\d \| 0\.00 \|$`, text)
	require.Regexp(t, `one call, start to exit \| median [1-9]`, text)
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "Inf")
}

// The wrappers that are measured one by one are those of the client's stack, in the same
// order.
func TestPartsAreOfTheStack(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	stack := wrappersIn(t, filepath.Join(root, "client", "stack", "stack.go"))
	require.Len(t, stack, 6)
	require.Equal(t, stack, wrappersIn(t, "contender/basis/parts.go"))
}

// wrappersIn returns the calls that make wrappers in a file, but those for no wrapper.
func wrappersIn(t *testing.T, file string) []string {
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	source = bytes.ReplaceAll(source, []byte("nodes.Wrap(nothing)"), nil)
	return regexp.MustCompile(`\b(ocplugin|limiter|breaker|hystrixplugin|nodes|roundrobin)\.(New\w*|Wrap)\(`).FindAllString(string(source), -1)
}

// A target holds or not by the median of what it was in each round, not by that
// of the numbers.
func TestTargets(t *testing.T) {
	r := report{Plan: plan{Starts: 3, Rounds: 1}, Results: results{}, OneShot: []float64{61, 60, 62}}
	for _, c := range contenders {
		for _, callers := range c.callers {
			r.Results[point{c.name, callers}] = []sample{
				{perSecond: 10, p50: 1, p99: 1, cpu: 1},
				{perSecond: 10, p50: 1, p99: 1, cpu: 1},
				{perSecond: 10, p50: 1, p99: 1, cpu: 1},
			}
		}
	}
	r.Results[point{"basis", 16}] = []sample{
		{perSecond: 10, p50: 1, p99: 1, cpu: 1},
		{perSecond: 8, p99: 2, cpu: 1},
		{perSecond: 30, p99: 3, cpu: 1},
	}
	r.Results[point{"limit", 16}] = []sample{
		{perSecond: 40, p99: 0.5}, // 0.25, 2
		{perSecond: 10, p99: 0.8}, // 0.8, 2.5
		{perSecond: 60, p99: 2},   // 0.5, 1.5
	}
	var holds []string
	for _, target := range r.Targets() {
		holds = append(holds, fmt.Sprintf("%s: %.2f, %.2f to %.2f: %v", target.What, target.Got, target.Low, target.High, target.Holds))
	}
	require.Equal(t, []string{
		"calls/s, to `limit`: 0.50, 0.25 to 0.80: true",
		"p99, to `limit`: 2.00, 1.50 to 2.50: true",
		"calls/s, to `gokit`: 1.00, 0.80 to 3.00: true",
		"CPU per call, to `gokit`: 1.00, 1.00 to 1.00: true",
		"calls/s, to `kratos`: 1.00, 0.80 to 3.00: true",
		"CPU per call, to `kratos`: 1.00, 1.00 to 1.00: true",
		"calls/s, to `article`: 1.00, 0.80 to 3.00: false",
		"calls/s with 50 instances, to 1: 1.00, 1.00 to 1.00: true",
		"p50 with 1000 nodes, to `limit` over as many connections: 1.00, 1.00 to 1.00: true",
		"calls/s with 256 callers, to 64: 1.00, 1.00 to 1.00: true",
		"one call, start to exit, in ms: 61.00, 60.00 to 62.00: false",
	}, holds)
}

// Spans are counted as jaeger-client-go sends them: several to a datagram, and a
// datagram when it is full or the tracer is closed.
func TestReceiver(t *testing.T) {
	r, err := newReceiver()
	require.NoError(t, err)
	tr, closer, err := tracer.NewTracer("some.service", r.conn.LocalAddr().String())
	require.NoError(t, err)
	const spans = 1000
	for range spans {
		tr.StartSpan("call", opentracing.Tag{Key: "req", Value: `name:"John"`}).Finish()
	}
	require.NoError(t, closer.Close())
	require.Equal(t, spans, r.count())
}

func TestNoSpans(t *testing.T) {
	for _, datagram := range []string{"", "x", "\x82\x81\x01\x09emitBatch", "\x82\x81\x01\x09emitBatch\x1c\x00"} {
		_, err := countSpans([]byte(datagram))
		require.Error(t, err, "%q", datagram)
	}
}
