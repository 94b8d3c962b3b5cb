// Package tracer makes the Jaeger tracer that both binaries share.
package tracer

import (
	"fmt"
	"io"
	"log"
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
// be parsed is an error. A Jaeger that is not there is none: spans are dropped, and no
// call waits for it or for its name.
func NewTracer(service, addr string) (opentracing.Tracer, io.Closer, error) {
	if err := CheckAddress(addr); err != nil {
		return nil, nil, err
	}
	cfg, err := fromEnv(&jaegercfg.Configuration{
		ServiceName: service,
		Sampler:     &jaegercfg.SamplerConfig{Type: jaeger.SamplerTypeConst, Param: 1},
		Reporter:    &jaegercfg.ReporterConfig{BufferFlushInterval: time.Second, QueueSize: queueSize},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("settings from JAEGER_ variables: %w", err)
	}
	if n := cfg.Reporter.QueueSize; n > maxQueueSize {
		return nil, nil, fmt.Errorf("JAEGER_REPORTER_MAX_QUEUE_SIZE is %d; want %d or less", n, maxQueueSize)
	}
	logger := &logger{}
	options := []jaegercfg.Option{jaegercfg.Logger(logger)}
	var reporter jaeger.Reporter = jaeger.NewNullReporter()
	if cfg.Reporter.CollectorEndpoint == "" { // else spans go there by HTTP
		reporter = newReporter(cfg.Reporter, addr, logger)
		options = append(options, jaegercfg.Reporter(reporter))
	}
	t, closer, err := cfg.NewTracer(options...)
	if err != nil {
		reporter.Close()
		return nil, nil, fmt.Errorf("tracer of %s: %w", service, err)
	}
	return t, timeoutCloser{closer}, nil
}

// fromEnv returns cfg with what the JAEGER_ variables say. The library indexes past the
// end of JAEGER_TAGS that it cannot parse.
func fromEnv(cfg *jaegercfg.Configuration) (_ *jaegercfg.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v; check JAEGER_TAGS, which takes key=value,key=value", p)
		}
	}()
	return cfg.FromEnv()
}

// newReporter returns the library's reporter, but for the transport: the
// library's waits until addr resolves.
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

// AddressFlag returns the flag --jaeger_address, which fills destination. Its variable
// is JAEGER_ADDRESS, its default DefaultAddress. CheckAddress checks the value.
func AddressFlag(destination *string) cli.Flag {
	return cli.StringFlag{
		Name: "jaeger_address", EnvVar: "JAEGER_ADDRESS", Value: DefaultAddress, Destination: destination,
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

// logger passes the library's messages to the standard logger. With Jaeger down, each flush
// is an error, and with a name that does not resolve, each span. So it logs one error of
// either kind a minute. The first kind does not keep the second from being logged.
type logger struct {
	mu        sync.Mutex
	next      time.Time // when the next error may be logged
	resolving time.Time // when the next error about the lookup of the name may be
}

func (l *logger) Error(msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := &l.next
	if strings.Contains(msg, errResolving.Error()) {
		next = &l.resolving
	}
	if now := time.Now(); now.After(*next) {
		*next = now.Add(time.Minute)
		log.Printf("jaeger: %s (spans may be lost; not logged again for a minute)", msg)
	}
}

// Debugf drops a line per flush. Without it the library logs that it has nowhere to
// say that.
func (l *logger) Debugf(string, ...any) {}

func (l *logger) Infof(msg string, args ...any) {
	log.Printf("jaeger: "+msg, args...)
}
