package tracer_test

import (
	"testing"

	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	jaegerclient "github.com/uber/jaeger-client-go"

	"github.com/gomicroexample/basis/tracer"
)

// newTracer returns a tracer for one test. Nobody receives its spans.
func newTracer(t *testing.T) opentracing.Tracer {
	t.Helper()
	tr, closer, err := tracer.NewTracer("svc", "127.0.0.1:1")
	require.NoError(t, err)
	t.Cleanup(func() { _ = closer.Close() })
	return tr
}

const (
	trace128 = "0af7651916cd43dd8448eb211c80319c"
	trace64  = "8448eb211c80319c"
	parent   = "b7ad6b7169203331"
)

// child starts a span as a server does for a call with this metadata, and returns the span's
// context.
func child(t *testing.T, tr opentracing.Tracer, metadata opentracing.TextMapCarrier) jaegerclient.SpanContext {
	t.Helper()
	var opts []opentracing.StartSpanOption
	if remote, err := tr.Extract(opentracing.TextMap, metadata); err == nil {
		opts = append(opts, opentracing.ChildOf(remote))
	}
	span := tr.StartSpan("span", opts...)
	span.Finish()
	return span.Context().(jaegerclient.SpanContext)
}

func TestTracesAreContinued(t *testing.T) {
	type headers = opentracing.TextMapCarrier
	const sampled, debug = 1, 3
	tr := newTracer(t)
	for _, test := range []struct {
		name    string
		headers headers
		trace   string
		flags   byte
	}{
		{"uber-trace-id", headers{"uber-trace-id": trace64 + ":" + parent + ":0:1"}, trace64, sampled},
		{"uber-trace-id, 128 bits, not sampled", headers{"uber-trace-id": trace128 + ":" + parent + ":0:0"}, trace128, 0},
		{"traceparent", headers{"traceparent": "00-" + trace128 + "-" + parent + "-01"}, trace128, sampled},
		{"traceparent, as HTTP spells it", headers{"Traceparent": "00-" + trace128 + "-" + parent + "-01"}, trace128, sampled},
		{"traceparent, 64 bits", headers{"traceparent": "00-0000000000000000" + trace64 + "-" + parent + "-01"}, trace64, sampled},
		{"traceparent, not sampled", headers{"traceparent": "00-" + trace128 + "-" + parent + "-00"}, trace128, 0},
		{"traceparent, other flags", headers{"traceparent": "00-" + trace128 + "-" + parent + "-0a"}, trace128, 0},
		{"traceparent, all flags", headers{"traceparent": "00-" + trace128 + "-" + parent + "-ff"}, trace128, sampled},
		{"traceparent of a later version", headers{"traceparent": "01-" + trace128 + "-" + parent + "-01-more"}, trace128, sampled},
		{"b3", headers{"b3": trace128 + "-" + parent + "-1"}, trace128, sampled},
		{"b3 with a parent", headers{"b3": trace64 + "-" + parent + "-1-05e3ac9a4f6e3b90"}, trace64, sampled},
		{"b3, not sampled", headers{"b3": trace64 + "-" + parent + "-0"}, trace64, 0},
		{"b3, debug", headers{"b3": trace64 + "-" + parent + "-d"}, trace64, debug},
		{"b3, undecided", headers{"b3": trace64 + "-" + parent}, trace64, sampled},
		{"x-b3", headers{"x-b3-traceid": trace128, "x-b3-spanid": parent, "x-b3-sampled": "1"}, trace128, sampled},
		{"x-b3, as HTTP spells it", headers{"X-B3-Traceid": trace64, "X-B3-Spanid": parent, "X-B3-Sampled": "true"}, trace64, sampled},
		{"x-b3, not sampled", headers{"x-b3-traceid": trace64, "x-b3-spanid": parent, "x-b3-sampled": "0"}, trace64, 0},
		{"x-b3, not sampled, in words", headers{"x-b3-traceid": trace64, "x-b3-spanid": parent, "x-b3-sampled": "false"}, trace64, 0},
		{"x-b3, debug", headers{"x-b3-traceid": trace64, "x-b3-spanid": parent, "x-b3-flags": "1"}, trace64, debug},
		{"x-b3, undecided", headers{"x-b3-traceid": trace64, "x-b3-spanid": parent}, trace64, sampled},
		{"uber-trace-id before the others", headers{
			"traceparent":   "00-" + trace128 + "-" + parent + "-00",
			"uber-trace-id": trace64 + ":" + parent + ":0:1",
		}, trace64, sampled},
		{"traceparent before B3", headers{
			"traceparent": "00-" + trace128 + "-" + parent + "-01",
			"b3":          trace64 + "-" + parent + "-0",
		}, trace128, sampled},
		{"one with IDs after one without", headers{
			"traceparent": "00-00000000000000000000000000000000-" + parent + "-01",
			"b3":          trace64 + "-" + parent + "-1",
		}, trace64, sampled},
		{"a well-formed one after a malformed one", headers{
			"uber-trace-id": "x", "traceparent": "x",
			"b3": trace64 + "-" + parent + "-1",
		}, trace64, sampled},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := child(t, tr, test.headers)
			require.Equal(t, test.trace, got.TraceID().String())
			require.Equal(t, parent, got.ParentID().String())
			require.Equal(t, test.flags, got.Flags())
		})
	}
}

func TestMalformedHeadersStartATrace(t *testing.T) {
	type headers = opentracing.TextMapCarrier
	zeros := "00000000000000000000000000000000"
	tr := newTracer(t)
	for name, malformed := range map[string]headers{
		"none":                              {},
		"uber-trace-id":                     {"uber-trace-id": "1:2:3"},
		"traceparent":                       {"traceparent": "x"},
		"traceparent, empty":                {"traceparent": ""},
		"traceparent, short trace":          {"traceparent": "00-" + trace64 + "-" + parent + "-01"},
		"traceparent, trace 0":              {"traceparent": "00-" + zeros + "-" + parent + "-01"},
		"traceparent, span 0":               {"traceparent": "00-" + trace128 + "-" + zeros[:16] + "-01"},
		"traceparent, upper case":           {"traceparent": "00-0AF7651916CD43DD8448EB211C80319C-" + parent + "-01"},
		"traceparent, version ff":           {"traceparent": "ff-" + trace128 + "-" + parent + "-01"},
		"traceparent, more than version 00": {"traceparent": "00-" + trace128 + "-" + parent + "-01-more"},
		"traceparent, without flags":        {"traceparent": "00-" + trace128 + "-" + parent},
		"traceparent, twice":                {"traceparent": "00-" + trace128 + "-" + parent + "-01, 00-" + trace128 + "-" + parent + "-01"},
		"b3, only a decision":               {"b3": "0"},
		"b3, without a span":                {"b3": trace64},
		"b3, unknown decision":              {"b3": trace64 + "-" + parent + "-x"},
		"b3, trace 0":                       {"b3": zeros + "-" + parent + "-1"},
		"x-b3, without a span":              {"x-b3-traceid": trace64, "x-b3-sampled": "1"},
		"x-b3, without a trace":             {"x-b3-spanid": parent, "x-b3-sampled": "1"},
		"x-b3, unknown decision":            {"x-b3-traceid": trace64, "x-b3-spanid": parent, "x-b3-sampled": "perhaps"},
		"x-b3, not hexadecimal":             {"x-b3-traceid": "g" + trace64[1:], "x-b3-spanid": parent},
		"x-b3, long trace":                  {"x-b3-traceid": trace128 + "0", "x-b3-spanid": parent},
	} {
		t.Run(name, func(t *testing.T) {
			got := child(t, tr, malformed)
			require.Zero(t, got.ParentID())
			require.NotContains(t, []string{trace128, trace64}, got.TraceID().String())
			require.True(t, got.IsSampled())
		})
	}
}

// A tracer reads the spans that another tracer writes, in every format.
func TestPropagation(t *testing.T) {
	reader := newTracer(t)
	for _, test := range []struct {
		formats string
		want    []string
	}{
		{"", []string{"uber-trace-id"}},
		{"jaeger", []string{"uber-trace-id"}},
		{"w3c", []string{"traceparent"}},
		{"b3", []string{"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}},
		{"jaeger, W3C", []string{"uber-trace-id", "traceparent"}},
	} {
		for _, param := range []string{"1", "0"} {
			for _, wide := range []string{"false", "true"} {
				t.Run("of "+test.formats+", sampler "+param+", 128 bits "+wide, func(t *testing.T) {
					t.Setenv("JAEGER_PROPAGATION", test.formats)
					t.Setenv("JAEGER_SAMPLER_PARAM", param)
					t.Setenv("JAEGER_TRACEID_128BIT", wide)
					tr := newTracer(t)
					span := tr.StartSpan("span")
					defer span.Finish()
					sent := span.Context().(jaegerclient.SpanContext)
					metadata := opentracing.TextMapCarrier{}
					require.NoError(t, tr.Inject(sent, opentracing.TextMap, metadata))
					var names []string
					for name := range metadata {
						names = append(names, name)
					}
					require.ElementsMatch(t, test.want, names)

					got := child(t, reader, metadata)
					require.Equal(t, sent.TraceID(), got.TraceID())
					require.Equal(t, sent.SpanID(), got.ParentID())
					require.Equal(t, sent.IsSampled(), got.IsSampled())
				})
			}
		}
	}
}

func TestCarriersThatAreNone(t *testing.T) {
	t.Setenv("JAEGER_PROPAGATION", "w3c")
	tr := newTracer(t)
	_, err := tr.Extract(opentracing.TextMap, 1)
	require.ErrorIs(t, err, opentracing.ErrInvalidCarrier)
	span := tr.StartSpan("span")
	defer span.Finish()
	require.ErrorIs(t, tr.Inject(span.Context(), opentracing.TextMap, 1), opentracing.ErrInvalidCarrier)
}
