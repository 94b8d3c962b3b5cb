package tracer_test

import (
	"log"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	jaegerclient "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"
	jaegerlog "github.com/uber/jaeger-client-go/log"

	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/tracer"
)

// These tests show the behavior of jaeger-client-go by itself. NewTracer fixes some of this
// behavior. Users of NewTracer have to know the rest.

// LogSpans has an effect only on the reporter that the configuration creates. It has no effect on a
// reporter that the caller passes.
func TestStockLogSpansNeedsNoReporterOfOnesOwn(t *testing.T) {
	logged := func(opts ...jaegercfg.Option) string {
		logger := new(jaegerlog.BytesBufferLogger)
		cfg := jaegercfg.Configuration{
			ServiceName: "svc",
			Sampler:     &jaegercfg.SamplerConfig{Type: jaegerclient.SamplerTypeConst, Param: 1},
			Reporter:    &jaegercfg.ReporterConfig{LogSpans: true, LocalAgentHostPort: agent(t).SpanServerAddr()},
		}
		tr, closer, err := cfg.NewTracer(append(opts, jaegercfg.Logger(logger))...)
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())
		return logger.String()
	}
	require.Contains(t, logged(), "Reporting span")
	require.NotContains(t, logged(jaegercfg.Reporter(jaegerclient.NewInMemoryReporter())), "Reporting span")
}

// The reporter formats a tag when it reports the span, and not when the tag is set. If a message is
// changed in between, the tag has the new content. If gRPC encodes the message at the same time,
// there is a data race.
func TestStockTagsAreFormattedLate(t *testing.T) {
	a := agent(t)
	tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
	require.NoError(t, err)
	req := &proto.Request{Name: "John"}
	span := tr.StartSpan("span")
	span.SetTag("message", req)
	span.SetTag("text", req.String())
	req.Name = "Ann"
	span.Finish()
	require.NoError(t, closer.Close())
	tags := map[string]string{}
	for _, tag := range batches(t, a)[0].Spans[0].Tags {
		tags[tag.Key] = tag.GetVStr()
	}
	require.Contains(t, tags["message"], "Ann")
	require.Contains(t, tags["text"], "John")
}

// log.Fatal ends the process without running deferred functions. So the last spans are lost.
func TestStockFatalLosesSpans(t *testing.T) {
	if addr := os.Getenv("FATAL_AGENT"); addr != "" {
		tr, closer, err := tracer.NewTracer("fatal", addr)
		require.NoError(t, err)
		defer closer.Close()
		tr.StartSpan("span").Finish()
		log.Fatal("oops")
	}
	a := agent(t)
	fatal := exec.Command(os.Args[0], "-test.run=^TestStockFatalLosesSpans$")
	fatal.Env = append(os.Environ(), "FATAL_AGENT="+a.SpanServerAddr())
	out, err := fatal.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "oops")

	// If the ended process had sent spans, they would have arrived before this span.
	tr, closer, err := tracer.NewTracer("closed", a.SpanServerAddr())
	require.NoError(t, err)
	tr.StartSpan("span").Finish()
	require.NoError(t, closer.Close())
	got := batches(t, a)
	require.Len(t, got, 1)
	require.Equal(t, "closed", got[0].Process.ServiceName)
}
