package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
	"github.com/gomicroexample/basis/dev/modern"
	"github.com/gomicroexample/basis/tracer"
)

// required makes the tests fail if Consul is missing.
var required = flag.Bool("required", false, "fail where Consul is missing, instead of skipping")

// The whole bench runs, with very short measurements.
func TestBench(t *testing.T) {
	if _, err := binaries.Consul.Find(); errors.Is(err, binaries.ErrMissing) && !*required {
		t.Skipf("%v; \"make tools\" builds it", err)
	}
	moment := plan{Starts: 1, Rounds: 1, Warmup: time.Millisecond, Measure: 50 * time.Millisecond, Profile: time.Second, Profiles: 1, OneShot: 2, Builds: 1}
	doc, err := bench(t.Context(), moment)
	require.NoError(t, err)
	text := string(doc)
	ratio := `\d+\.\d+, \d+\.\d+ to \d+\.\d+`
	number := `\d+(\.\d+)? \(` + ratio + `\) \| `
	names := []string{"limit", "basis", "grpc-modern", "gokit", "kratos", "gozero", "article"}
	for _, name := range names {
		require.Regexp(t, `(?s)(\| .`+name+`. \| `+number+`.*){4}`, text)
		require.Regexp(t, `(?m)^\| .`+name+`-shipped. \| (`+number+`){4}`, text)
		require.Regexp(t, `(?m)^\| .`+name+`. \| [1-9]\d*\.\d \| [1-9]\d*\.\d \| 2 \|$`, text, "one call")
	}
	for _, name := range []string{`\+roundrobin`, `\+limiter`, `\+breaker`, `\+opentracing`, "basis-metrics"} {
		require.Regexp(t, `(?m)^\| .`+name+`. \| (`+number+`){4}`, text)
	}
	for _, name := range names[:len(names)-1] {
		for _, n := range []string{"1", "10", "50", "1000"} {
			require.Regexp(t, `(?m)^\| `+n+` \| .`+name+`(-nodes-\d+)?. \| (`+number+`){4}`, text)
		}
	}
	for _, name := range names[1 : len(names)-1] {
		require.Regexp(t, `(?m)^\| .`+name+`. \| [1-9]\d*\.\d \| [1-9]\d*\.\d \| (4\.00|3\.9\d) \|$`, text)
	}
	require.Regexp(t, `(?m)^\| .limit. \| [1-9]\d*\.\d \| [1-9]\d*\.\d \| 0\.00 \|$`, text)
	for _, component := range []string{"gRPC and the network", "together"} {
		require.Regexp(t, `(?m)^\| `+component+` \|( [1-9]\d*\.\d \|){6} \d+\.\d \|$`, text, "article has no gRPC")
	}
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "Inf")
}

func TestComponents(t *testing.T) {
	const parse = "google.golang.org/protobuf/proto.Unmarshal"
	for want, stack := range map[string][]string{ // the innermost function first
		"protobuf":             {"runtime.mallocgc", "reflect.New", parse, "google.golang.org/grpc.(*Server).processRPC"},
		"gRPC and the network": {"syscall.Write", "google.golang.org/grpc/internal/transport.(*loopyWriter).run"},
		"choice of a node":     {"google.golang.org/grpc/balancer/base.(*picker).Pick", "google.golang.org/grpc.(*ClientConn).Invoke"},
		"framework":            {"maps.Clone", "github.com/micro/go-micro/metadata.Copy", "github.com/gomicroexample/basis/tracer.X"},
		"tracing":              {parse, "google.golang.org/grpc.(*ClientConn).Invoke", "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc.(*client).UploadTraces"},
		garbage:                {"runtime.scanobject", "runtime.gcAssistAlloc", "runtime.mallocgc", parse},
		stacks:                 {"runtime.memmove", "runtime.copystack", "runtime.newstack", parse},
		scheduler:              {"runtime.futex", "runtime.schedule", "runtime.mcall"},
	} {
		s := &profile.Sample{}
		for _, name := range stack {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		require.Equal(t, want, componentOf(s), stack)
	}
}

// With equal settings, every program has the same GOGC. Every program with its own default settings
// has an empty GOGC.
func TestTerms(t *testing.T) {
	t.Setenv("GOGC", "7")
	last := func(e entry) (gogc string) {
		for _, v := range environ(e) {
			if value, ok := strings.CutPrefix(v, "GOGC="); ok {
				gogc = value
			}
		}
		return gogc
	}
	for _, e := range contenders {
		want := "400"
		if e.shipped {
			want = ""
		}
		require.Equal(t, want, last(e), e.name)
	}
}

// The gRPC settings in transport.go, which the contenders share, are the settings of srv and of the
// pair's client.
func TestTransportIsThePairs(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	in := func(file, pattern string) []string {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		return slices.Sorted(slices.Values(regexp.MustCompile(pattern).FindAllString(string(source), -1)))
	}
	const transport = "contender/transport.go"
	server := `\bgrpc\.(MaxHeaderListSize|MaxConcurrentStreams|StaticStreamWindowSize|ConnectionTimeout|KeepaliveParams|KeepaliveEnforcementPolicy|NumStreamWorkers|InitialWindowSize|StaticConnWindowSize)\(.*\),`
	want := in(filepath.Join(root, "srv", "main.go"), server)
	require.Len(t, want, 7)
	require.Equal(t, want, in(transport, server))
	require.NotEmpty(t, in(filepath.Join(root, "srv", "main.go"), `MaxMsgSize\(64 << 10\)`))
	client := `grpc\.With(DefaultCallOptions|MaxHeaderListSize|Static\w+|Keepalive\w+)\(.*\),|const maxResponseBytes = .*`
	want = in(filepath.Join(root, "client", "balancer", "conn.go"), client)
	require.Len(t, want, 5)
	require.Equal(t, want, in(transport, client))
}

// The wrappers that are measured one by one are the wrappers of the client's stack, in the same
// order.
func TestPartsAreOfTheStack(t *testing.T) {
	root, err := project.Root()
	require.NoError(t, err)
	stack := wrappersIn(t, filepath.Join(root, "client", "stack", "stack.go"))
	require.Len(t, stack, 6)
	require.Equal(t, stack, wrappersIn(t, "contender/basis/parts.go"))
}

// wrappersIn returns the function calls in a file that create wrappers, in the order of the file.
// It leaves out nodes.Wrap(unwrapped).
func wrappersIn(t *testing.T, file string) []string {
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	source = bytes.ReplaceAll(source, []byte("nodes.Wrap(unwrapped)"), nil)
	return regexp.MustCompile(`\b(ocplugin|limiter|breaker|hystrixplugin|nodes|roundrobin)\.(New\w*|Wrap)\(`).FindAllString(string(source), -1)
}

// Each round gives a ratio. A target holds if the median of these ratios reaches the target. The
// ratio of the two contenders' medians is not used.
func TestTargets(t *testing.T) {
	r := report{Plan: plan{Starts: 3, Rounds: 1}, Results: results{}, OneShots: map[string][]float64{"client": {61, 60, 62}}}
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
		{perSecond: 40, p99: 0.5}, // the ratios of basis to limit are 0.25 and 2
		{perSecond: 10, p99: 0.8}, // 0.8 and 2.5
		{perSecond: 60, p99: 2},   // 0.5 and 1.5
	}
	var holds []string
	for _, target := range r.Targets() {
		holds = append(holds, fmt.Sprintf("%s: %.2f, %.2f to %.2f: %v", target.What, target.Got, target.Low, target.High, target.Holds))
	}
	require.Equal(t, []string{
		"calls/s, ratio to `limit`: 0.50, 0.25 to 0.80: true",
		"p99, ratio to `limit`: 2.00, 1.50 to 2.50: true",
		"calls/s, ratio to `gokit`: 1.00, 0.80 to 3.00: true",
		"CPU per call, ratio to `gokit`: 1.00, 1.00 to 1.00: true",
		"calls/s, ratio to `kratos`: 1.00, 0.80 to 3.00: true",
		"CPU per call, ratio to `kratos`: 1.00, 1.00 to 1.00: true",
		"calls/s, ratio to `gozero`: 1.00, 0.80 to 3.00: true",
		"CPU per call, ratio to `gozero`: 1.00, 1.00 to 1.00: true",
		"calls/s, ratio to `grpc-modern`: 1.00, 0.80 to 3.00: true",
		"CPU per call, ratio to `grpc-modern`: 1.00, 1.00 to 1.00: true",
		"calls/s, ratio to `article`: 1.00, 0.80 to 3.00: false",
		"calls/s with 1,000 nodes, ratio to `limit` with 1,000 connections: 1.00, 1.00 to 1.00: true",
		"calls/s with metrics, ratio to calls/s without: 1.00, 0.33 to 1.25: true",
		"calls/s with 256 callers, ratio to 64 callers: 1.00, 1.00 to 1.00: true",
		"one call of the pair's `client`, from start to exit, in ms: 61.00, 60.00 to 62.00: false",
	}, holds)
}

// The agent counts all spans that the pair's tracer sends. A datagram has several spans, and the
// last datagram is sent when the tracer is closed.
func TestReceiver(t *testing.T) {
	r, err := newReceiver(entry{})
	require.NoError(t, err)
	tr, closer, err := tracer.NewTracer("some.service", r.address())
	require.NoError(t, err)
	const spans = 1000
	for range spans {
		tr.StartSpan("call", opentracing.Tag{Key: "req", Value: `name:"John"`}).Finish()
	}
	require.NoError(t, closer.Close())
	require.Equal(t, spans, r.count())
}

// The collector counts all spans that OpenTelemetry's exporter sends.
func TestCollector(t *testing.T) {
	r, err := newReceiver(entry{otlp: true})
	require.NoError(t, err)
	provider, flush, err := modern.NewTracing("some.service", r.address())
	require.NoError(t, err)
	const spans = 1000
	for i := range spans {
		_, span := provider.Tracer([]string{"one", "other"}[i%2]).Start(t.Context(), "call")
		span.SetAttributes(attribute.String("req", `name:"John"`))
		span.End()
	}
	require.NoError(t, flush())
	require.Equal(t, spans, r.count())
}

func TestNoExport(t *testing.T) {
	for _, message := range []string{"x", "\xff", "\x0a", "\x0a\x05\x12", "\x08\x01"} {
		_, err := countFields([]byte(message), 1, 2, 2)
		require.Error(t, err, "%q", message)
	}
	n, err := countFields(nil, 1, 2, 2)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestNoSpans(t *testing.T) {
	for _, datagram := range []string{"", "x", "\x82\x81\x01\x09emitBatch", "\x82\x81\x01\x09emitBatch\x1c\x00"} {
		_, err := countSpans([]byte(datagram))
		require.Error(t, err, "%q", datagram)
	}
}
