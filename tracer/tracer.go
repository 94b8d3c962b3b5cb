// Package tracer creates the Jaeger tracers of srv and client. If Jaeger is down, calls do not
// block.
package tracer

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/micro/cli"
	opentracing "github.com/opentracing/opentracing-go"
	jaeger "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"

	"github.com/gomicroexample/basis/internal/hostport"
)

// DefaultAddress is the address at which a Jaeger on the same machine receives the spans of
// jaeger-client-go, as compact Thrift over UDP.
const DefaultAddress = "localhost:6831"

// Sizes of the queue, in spans. The queue contains the finished spans that wait to be sent. A span
// is dropped if the queue is full. The library's default, 100, is too small: a few calls that end
// at the same time fill the queue. maxQueueSize is the limit for JAEGER_REPORTER_MAX_QUEUE_SIZE, so
// that a typing error cannot use up all memory.
const (
	queueSize    = 10_000
	maxQueueSize = 10_000_000
)

// NewTracer returns a tracer that sends the spans of service to the Jaeger at addr. addr is
// host:port; CheckAddress checks it. The tracer samples every span, and sends finished spans at
// least once per second. Close the returned io.Closer to send the remaining spans. If this takes
// longer than a second, Close logs the loss and returns.
//
// The environment variables of jaeger-client-go override these settings:
// https://github.com/jaegertracing/jaeger-client-go#environment-variables. But JAEGER_AGENT_HOST
// and JAEGER_AGENT_PORT do not change addr. If JAEGER_ENDPOINT is set, the tracer sends spans to
// this URL over HTTP, and not to addr.
//
// NewTracer returns an error if addr is not valid, or if a variable cannot be parsed. It logs each
// variable that is set but has no effect.
//
// The library does not have the following variables, or uses them differently:
//
//   - JAEGER_PROPAGATION lists formats, separated by commas: jaeger (the default), w3c or b3. The
//     tracer writes a span to the metadata of a call (an opentracing.TextMap) in each of these
//     formats. The tracer always reads all three formats.
//   - JAEGER_REPORTER_MAX_PACKET_SIZE is the maximum size of a UDP packet with several spans, from
//     512 to 65000 bytes. The default is 65000 (9216 on macOS) for localhost, and 1232 for other
//     machines.
//   - JAEGER_SAMPLING_ENDPOINT is the URL from which a sampler of type remote gets its strategy.
//     The default is port 5778 on the host of addr.
//
// The tracer sends HTTP requests through the proxy in HTTP_PROXY or HTTPS_PROXY, except the
// requests to the default sampling endpoint.
//
// An unreachable Jaeger is not an error: the tracer drops spans. No call waits for Jaeger, or for
// the lookup of its name.
func NewTracer(service, addr string, opts ...Option) (opentracing.Tracer, io.Closer, error) {
	if err := CheckAddress(addr); err != nil {
		return nil, nil, err
	}
	cfg := &jaegercfg.Configuration{
		ServiceName: service,
		Sampler:     &jaegercfg.SamplerConfig{Type: jaeger.SamplerTypeConst, Param: 1},
		Reporter:    &jaegercfg.ReporterConfig{BufferFlushInterval: time.Second, QueueSize: queueSize},
	}
	size, err := packetSize(addr)
	if err == nil {
		err = fromEnv(cfg)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("settings from JAEGER_ variables: %w", err)
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if cfg.Disabled {
		return opentracing.NoopTracer{}, io.NopCloser(nil), nil
	}
	carrier, err := newPropagator(os.Getenv("JAEGER_PROPAGATION"))
	if err != nil {
		return nil, nil, fmt.Errorf("settings from JAEGER_ variables: %w", err)
	}
	logger := &logger{}
	closing, stop := context.WithCancel(context.Background())
	if strings.ToLower(cfg.Sampler.Type) == jaeger.SamplerTypeRemote {
		fetcher, err := newFetcher(closing, addr)
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("settings from JAEGER_ variables: %w", err)
		}
		cfg.Sampler.Options = []jaeger.SamplerOption{
			jaeger.SamplerOptions.SamplingStrategyFetcher(fetcher),
			jaeger.SamplerOptions.Logger(samplerLogger{logger, closing}),
		}
	}
	var transport jaeger.Transport
	if cfg.Reporter.CollectorEndpoint == "" {
		transport = newSender(addr, size, logger)
	} else {
		transport = newCollector(cfg.Reporter)
	}
	reporter := newReporter(cfg.Reporter, transport, logger, o.metrics(transport))
	t, closer, err := cfg.NewTracer(
		jaegercfg.Logger(logger),
		jaegercfg.Reporter(reporter),
		jaegercfg.Injector(opentracing.TextMap, carrier),
		jaegercfg.Extractor(opentracing.TextMap, carrier),
	)
	if err != nil {
		stop()
		reporter.Close()
		return nil, nil, fmt.Errorf("tracer of %s: %w", service, err)
	}
	logIgnored(cfg.Reporter, addr)
	return t, timeoutCloser{closer, stop}, nil
}

// newReporter returns the reporter that the library would create for cfg, but with the given
// transport.
func newReporter(cfg *jaegercfg.ReporterConfig, transport jaeger.Transport, logger jaeger.Logger, metrics *jaeger.Metrics) jaeger.Reporter {
	reporter := jaeger.NewRemoteReporter(
		transport,
		jaeger.ReporterOptions.QueueSize(cfg.QueueSize),
		jaeger.ReporterOptions.BufferFlushInterval(cfg.BufferFlushInterval),
		jaeger.ReporterOptions.Logger(logger),
		jaeger.ReporterOptions.Metrics(metrics),
	)
	if cfg.LogSpans {
		reporter = jaeger.NewCompositeReporter(jaeger.NewLoggingReporter(logger), reporter)
	}
	return reporter
}

// AddressFlag returns the flag --jaeger_address, which sets destination. The variable of the flag
// is JAEGER_ADDRESS. The default is DefaultAddress. jaeger-client-go's variables JAEGER_AGENT_HOST
// and JAEGER_AGENT_PORT replace the host and the port of the default. Check the value with
// CheckAddress.
func AddressFlag(destination *string) cli.Flag {
	return cli.StringFlag{
		Name: "jaeger_address", EnvVar: "JAEGER_ADDRESS", Value: defaultAddress(), Destination: destination,
		Usage: "host:port of the Jaeger that receives the spans, over UDP",
	}
}

// CheckAddress returns an error if addr is not host:port with a numeric port. It does not look the
// host up, because Jaeger may start after the programs that send spans.
func CheckAddress(addr string) error {
	if err := hostport.Check(addr); err != nil {
		return fmt.Errorf("address of Jaeger %q: %w; want host:port, as in %s", addr, err, DefaultAddress)
	}
	return nil
}

// logger writes the library's messages to the standard logger. It logs at most one error of each
// kind per minute. Otherwise it would log an error for each packet if the network is down, and for
// each span if Jaeger's name cannot be resolved. An error of one kind does not suppress an error of
// another kind.
type logger struct {
	mu   sync.Mutex
	next [kinds]time.Time // when the next error of each kind may be logged
}

// Kinds of errors.
const (
	sending   = iota
	resolving // looking up the name in Jaeger's address
	fitting   // a span is too large for a packet
	sampling
	kinds // the number of kinds
)

// Error logs msg as an error, and adds that spans may be lost.
func (l *logger) Error(msg string) {
	kind := sending
	switch {
	case strings.Contains(msg, errResolving.Error()):
		kind = resolving
	case strings.Contains(msg, errLarge.Error()):
		kind = fitting
	}
	l.logError(kind, msg, "spans may be lost")
}

// logError logs an error and its effect, unless an error of the same kind was logged less than a
// minute ago.
func (l *logger) logError(kind int, msg, effect string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.next[kind]) {
		l.next[kind] = now.Add(time.Minute)
		log.Printf("jaeger: %s (%s; not logged again for a minute)", msg, effect)
	}
}

// Debugf drops debug messages, for example one message per flush. The method must exist: without
// it, the library logs "debug logging disabled".
func (l *logger) Debugf(string, ...any) {}

// Infof logs a message.
func (l *logger) Infof(msg string, args ...any) {
	log.Printf("jaeger: "+msg, args...)
}

// samplerLogger is the logger of the remote sampler. This sampler requests its strategy repeatedly,
// and logs failures with Infof.
type samplerLogger struct {
	*logger
	closing context.Context // ends when the tracer closes, and cancels the last request
}

// Infof logs that the sampler failed to get its strategy. It logs nothing after the tracer starts
// to close: the last request then fails because it is canceled.
func (l samplerLogger) Infof(msg string, args ...any) {
	if l.closing.Err() == nil {
		l.logError(sampling, fmt.Sprintf(msg, args...), "the sampler goes on as before")
	}
}
