package tracer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	opentracing "github.com/opentracing/opentracing-go"
	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/zipkin"
)

// propagator writes spans to the metadata of calls, and reads spans from the metadata. It writes
// the formats in JAEGER_PROPAGATION, and reads all formats.
type propagator struct {
	native    jaeger.Extractor
	injectors []jaeger.Injector
}

// newPropagator returns a propagator that writes the formats in names, a comma-separated list. The
// possible formats are jaeger, w3c and b3. If names is empty, the format is jaeger. newPropagator
// returns an error for any other name.
func newPropagator(names string) (*propagator, error) {
	native := jaeger.NewTextMapPropagator(new(jaeger.HeadersConfig).ApplyDefaults(), *jaeger.NewNullMetrics())
	if names == "" {
		return &propagator{native, []jaeger.Injector{native}}, nil
	}
	p := &propagator{native: native}
	for name := range strings.SplitSeq(names, ",") {
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "jaeger":
			p.injectors = append(p.injectors, native)
		case "w3c":
			p.injectors = append(p.injectors, traceparentInjector{})
		case "b3":
			p.injectors = append(p.injectors, zipkin.NewZipkinB3HTTPHeaderPropagator())
		default:
			return nil, fmt.Errorf("JAEGER_PROPAGATION is %q; want jaeger, w3c or b3, or several of them separated by commas", names)
		}
	}
	return p, nil
}

// Inject writes sc to carrier in each format of JAEGER_PROPAGATION.
func (p *propagator) Inject(sc jaeger.SpanContext, carrier any) error {
	for _, injector := range p.injectors {
		if err := injector.Inject(sc, carrier); err != nil {
			return err
		}
	}
	return nil
}

// Extract returns the span in the first well-formed header, in this order: Jaeger's uber-trace-id,
// W3C's traceparent, B3's b3, and B3's x-b3-traceid with x-b3-spanid. If a handler makes calls with
// its own context, go-micro sends the trace headers of the handler's call with these calls too. So
// the headers of W3C and B3 may be from an earlier span of the same trace. For this reason,
// Jaeger's header is first.
func (p *propagator) Extract(carrier any) (jaeger.SpanContext, error) {
	sc, err := p.native.Extract(carrier)
	if err == nil && sc.IsValid() {
		return sc, nil
	}
	reader, ok := carrier.(opentracing.TextMapReader)
	if !ok {
		return sc, err
	}
	headers := map[string]string{}
	_ = reader.ForeachKey(func(key, value string) error {
		if key = strings.ToLower(key); slices.Contains(foreignHeaders, key) {
			headers[key] = value
		}
		return nil
	})
	for _, native := range []string{traceparent(headers), b3Single(headers), b3Multiple(headers)} {
		if foreign, malformed := jaeger.ContextFromString(native); malformed == nil && foreign.IsValid() {
			return foreign, nil
		}
	}
	return sc, err
}

var foreignHeaders = []string{"traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"}

// Flags of uber-trace-id.
const (
	notSampled = "0"
	sampled    = "1"
	debug      = "3" // debug spans are also sampled
)

// native returns the value of the header uber-trace-id for a span.
func native(trace, span, flags string) string { return trace + ":" + span + ":0:" + flags }

// traceparentForm matches the header of https://www.w3.org/TR/trace-context/: version, trace ID,
// span ID and flags. A version other than 00 may have more fields.
var traceparentForm = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])(-.*)?$`)

// traceparent converts W3C's header to a value of uber-trace-id. It returns "" if the header is
// missing or malformed.
func traceparent(headers map[string]string) string {
	m := traceparentForm.FindStringSubmatch(headers["traceparent"])
	if m == nil || m[1] == "ff" || m[1] == "00" && m[5] != "" {
		return ""
	}
	flags := notSampled
	if strings.Contains("13579bdf", m[4]) {
		flags = sampled
	}
	return native(m[2], m[3], flags)
}

// b3SingleForm matches the header of https://github.com/openzipkin/b3-propagation#single-header.
var b3SingleForm = regexp.MustCompile(`^([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?$`)

// b3Single converts B3's single header to a value of uber-trace-id. It returns "" if the header is
// missing or malformed.
func b3Single(headers map[string]string) string {
	m := b3SingleForm.FindStringSubmatch(headers["b3"])
	if m == nil {
		return ""
	}
	return native(m[1], m[2], b3Flags[m[3]])
}

// b3Flags maps B3's sampling decision to the flags of uber-trace-id. A span without a decision is
// sampled, because Jaeger's tracer does not use its sampler for the child of a remote span.
var b3Flags = map[string]string{"0": notSampled, "false": notSampled, "1": sampled, "true": sampled, "d": debug, "": sampled}

// b3Multiple converts B3's multiple headers to a value of uber-trace-id. If a required header is
// missing or malformed, the value is malformed too.
func b3Multiple(headers map[string]string) string {
	flags := b3Flags[headers["x-b3-sampled"]]
	if headers["x-b3-flags"] == "1" {
		flags = debug
	}
	return native(headers["x-b3-traceid"], headers["x-b3-spanid"], flags)
}

// traceparentInjector writes W3C's header. jaeger-client-go has no injector for this header.
type traceparentInjector struct{}

func (traceparentInjector) Inject(sc jaeger.SpanContext, carrier any) error {
	writer, ok := carrier.(opentracing.TextMapWriter)
	if !ok {
		return opentracing.ErrInvalidCarrier
	}
	flags := 0
	if sc.IsSampled() {
		flags = 1
	}
	id := sc.TraceID()
	writer.Set("traceparent", fmt.Sprintf("00-%016x%016x-%016x-%02x", id.High, id.Low, uint64(sc.SpanID()), flags))
	return nil
}
