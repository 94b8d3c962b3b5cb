// Package tracer makes the Jaeger tracer that both binaries share.
package tracer

import (
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	opentracing "github.com/opentracing/opentracing-go"
	jaeger "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"

	"github.com/gomicroexample/basis/internal/hostport"
)

// DefaultAddress is where a Jaeger on this machine takes spans from
// jaeger-client-go: compact Thrift over UDP.
const DefaultAddress = "localhost:6831"

// queueSize is how many finished spans may wait to be sent. The library's 100
// overflows when a few callers finish together, and what overflows is lost.
const queueSize = 10_000

// maxQueueSize keeps a slip of the finger from taking all memory.
const maxQueueSize = 10_000_000

// NewTracer returns a tracer that reports the spans of service to the Jaeger
// at addr, a host:port that takes compact Thrift over UDP (DefaultAddress for
// one on this machine). Every span is sampled, and finished spans are sent at
// least once a second. Closing the io.Closer sends what is left, within a second.
//
// The standard variables of jaeger-client-go override these settings, among
// them JAEGER_SAMPLER_TYPE and JAEGER_SAMPLER_PARAM, JAEGER_TAGS,
// JAEGER_REPORTER_LOG_SPANS (each finished span is also logged),
// JAEGER_REPORTER_FLUSH_INTERVAL and JAEGER_DISABLED; their list is at
// https://github.com/jaegertracing/jaeger-client-go#environment-variables.
// JAEGER_AGENT_HOST and JAEGER_AGENT_PORT do not count: addr says where.
//
// An address that is not host:port and a variable that cannot be parsed are
// errors. A Jaeger that is not there is not: spans are dropped, which is
// logged at most once a minute, and neither NewTracer nor a call waits for it or
// for its name to resolve.
func NewTracer(service, addr string) (t opentracing.Tracer, closer io.Closer, err error) {
	if err := CheckAddress(addr); err != nil {
		return nil, nil, err
	}
	// The library indexes past the end of JAEGER_TAGS that it cannot parse.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("settings from JAEGER_ variables: %v; check JAEGER_TAGS, which takes key=value,key=value", p)
		}
	}()
	settings := jaegercfg.Configuration{
		ServiceName: service,
		Sampler: &jaegercfg.SamplerConfig{
			Type:  jaeger.SamplerTypeConst,
			Param: 1,
		},
		Reporter: &jaegercfg.ReporterConfig{
			BufferFlushInterval: time.Second,
			QueueSize:           queueSize,
		},
	}
	cfg, err := settings.FromEnv()
	if err != nil {
		return nil, nil, fmt.Errorf("settings from JAEGER_ variables: %w", err)
	}
	if n := cfg.Reporter.QueueSize; n > maxQueueSize {
		return nil, nil, fmt.Errorf("JAEGER_REPORTER_MAX_QUEUE_SIZE is %d; want %d or less", n, maxQueueSize)
	}
	logger := &logger{}
	options := []jaegercfg.Option{jaegercfg.Logger(logger)}
	if cfg.Reporter.CollectorEndpoint == "" { // which takes spans over HTTP instead
		options = append(options, jaegercfg.Reporter(newReporter(cfg.Reporter, addr, logger)))
	}
	t, closer, err = cfg.NewTracer(options...)
	if err != nil {
		return nil, nil, fmt.Errorf("tracer for Jaeger at %s: %w", addr, err)
	}
	return t, closing{closer}, nil
}

// newReporter returns a reporter that sends spans to addr, and logs them too if
// cfg says so.
func newReporter(cfg *jaegercfg.ReporterConfig, addr string, logger jaeger.Logger) jaeger.Reporter {
	reporter := jaeger.NewRemoteReporter(
		newTransport(addr, logger),
		jaeger.ReporterOptions.QueueSize(cfg.QueueSize),
		jaeger.ReporterOptions.BufferFlushInterval(cfg.BufferFlushInterval),
		jaeger.ReporterOptions.Logger(logger),
	)
	if cfg.LogSpans {
		reporter = jaeger.NewCompositeReporter(jaeger.NewLoggingReporter(logger), reporter)
	}
	return reporter
}

// CheckAddress returns an error if addr is not host:port with a numeric port.
// Whether the host resolves is not asked: a Jaeger may come up after those who
// send it spans.
func CheckAddress(addr string) error {
	if err := hostport.Check(addr); err != nil {
		return fmt.Errorf("address of Jaeger %q: %w; want host:port, as in %s", addr, err, DefaultAddress)
	}
	return nil
}

// logger passes the library's messages to the standard logger. A Jaeger that
// is down makes an error of every flush; one a minute is enough to know.
type logger struct {
	mu   sync.Mutex
	next time.Time // when the next error may be logged
}

func (l *logger) Error(msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		return
	}
	l.next = now.Add(time.Minute)
	log.Printf("jaeger: %s (spans may be lost; not logged again for a minute)", msg)
}

// Debugf drops what is said of every flush. Without it the library says that
// it has nowhere to say that.
func (l *logger) Debugf(string, ...any) {}

func (l *logger) Infof(msg string, args ...any) {
	log.Printf("jaeger: "+msg, args...)
}
