// Package tracer makes the Jaeger tracer that both binaries share.
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

// DefaultAddress is where a Jaeger on this machine takes spans from
// jaeger-client-go: compact Thrift over UDP.
const DefaultAddress = "localhost:6831"

// How many finished spans may wait to be sent. More are lost: a few callers that
// finish together overflow the library's 100. The maximum keeps a slip of the
// finger from taking all memory.
const (
	queueSize    = 10_000
	maxQueueSize = 10_000_000
)

// NewTracer returns a tracer that reports the spans of service to the Jaeger at
// addr, as CheckAddress wants it. Every span is sampled, and finished spans are
// sent at least once a second. Closing the io.Closer sends what is left, within a
// second, or logs that it could not.
//
// jaeger-client-go's variables override these settings:
// https://github.com/jaegertracing/jaeger-client-go#environment-variables. But addr is
// where spans go, unless JAEGER_ENDPOINT says where to by HTTP. A variable that cannot
// be parsed is an error. A variable that has no effect is logged. These
// variables are this package's own, or differ from the library's:
//
//   - JAEGER_PROPAGATION has the formats in which the tracer writes a span to the metadata of
//     a call, for opentracing.TextMap: jaeger (the default), w3c and b3, separated by
//     commas. The tracer reads all of them, whatever the variable says.
//   - JAEGER_REPORTER_MAX_PACKET_SIZE has the bytes of a UDP packet with several spans, 512 to
//     65000. The default is 65000 (9216 on macOS) to localhost, and 1232 to other machines.
//   - A sampler of the type remote asks the port 5778 of addr's host for its strategy, unless
//     JAEGER_SAMPLING_ENDPOINT has another URL.
//
// Requests to a URL in a variable go through the proxy in HTTP_PROXY or HTTPS_PROXY.
//
// A Jaeger that is not there is no error: spans are dropped, and no call waits for it or for
// its name.
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

// newReporter returns the library's reporter, but for the transport.
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

// AddressFlag returns the flag --jaeger_address, which fills destination. Its variable
// is JAEGER_ADDRESS. Its default is DefaultAddress, in which jaeger-client-go's
// JAEGER_AGENT_HOST and JAEGER_AGENT_PORT replace the host and the port. CheckAddress checks
// the value.
func AddressFlag(destination *string) cli.Flag {
	return cli.StringFlag{
		Name: "jaeger_address", EnvVar: "JAEGER_ADDRESS", Value: defaultAddress(), Destination: destination,
		Usage: "host:port of the Jaeger that spans are sent to, over UDP",
	}
}

// CheckAddress returns an error if addr is not host:port with a numeric port. The
// host is not looked up: a Jaeger may come up after those who send it spans.
func CheckAddress(addr string) error {
	if err := hostport.Check(addr); err != nil {
		return fmt.Errorf("address of Jaeger %q: %w; want host:port, as in %s", addr, err, DefaultAddress)
	}
	return nil
}

// logger passes the library's messages to the standard logger. Without a network, each packet
// is an error, and with a name that does not resolve, each span. So it logs one error of
// each kind a minute. No kind keeps another from being logged.
type logger struct {
	mu   sync.Mutex
	next [kinds]time.Time // when the next error of a kind may be logged
}

// Kinds of errors.
const (
	sending   = iota
	resolving // the name in Jaeger's address
	fitting   // spans into packets
	sampling
	kinds
)

// Error logs that spans may be lost.
func (l *logger) Error(msg string) {
	kind := sending
	switch {
	case strings.Contains(msg, errResolving.Error()):
		kind = resolving
	case strings.Contains(msg, errLarge.Error()):
		kind = fitting
	}
	l.log(kind, msg, "spans may be lost")
}

// log logs an error and what comes of it, unless the last one of that kind was logged less
// than a minute ago.
func (l *logger) log(kind int, msg, effect string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.next[kind]) {
		l.next[kind] = now.Add(time.Minute)
		log.Printf("jaeger: %s (%s; not logged again for a minute)", msg, effect)
	}
}

// Debugf drops a line per flush. Without it the library logs that it has nowhere to
// say that.
func (l *logger) Debugf(string, ...any) {}

// Infof logs a message.
func (l *logger) Infof(msg string, args ...any) {
	log.Printf("jaeger: "+msg, args...)
}

// samplerLogger is the logger of the sampler named remote, which asks for its strategy again
// and again, and reports failures as information.
type samplerLogger struct {
	*logger
	closing context.Context // ends with the tracer, and then the last request too
}

// Infof logs that the sampler could not get its strategy.
func (l samplerLogger) Infof(msg string, args ...any) {
	if l.closing.Err() == nil {
		l.log(sampling, fmt.Sprintf(msg, args...), "the sampler goes on as before")
	}
}
