// Package flags defines the client's own flags, with their environment variables, defaults and
// limits.
//
// The flags are not in package main, because "go run client/main.go" compiles only one file of
// package main.
package flags

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/micro/cli"
	microclient "github.com/micro/go-micro/client"

	"github.com/gomicroexample/basis/internal/mtls"
	"github.com/gomicroexample/basis/tracer"
)

// Settings are the values of the client's flags. The usage texts in Flags explain the flags.
type Settings struct {
	Name                             string
	Requests, Concurrency, RateLimit int
	Wait                             time.Duration

	// RequestTimeout is the value of go-micro's flag --client_request_timeout, or 0 without the
	// flag. See CallTimeout.
	RequestTimeout time.Duration

	HystrixTimeout, HystrixSleepWindow                       time.Duration
	HystrixErrorPercent, HystrixMaxConcurrent, HystrixVolume int

	JaegerAddress string
	Verbose       bool
	TLS           mtls.Files
}

// Flags returns the flags that set the fields of s, except RequestTimeout. The article's values are
// the defaults.
func (s *Settings) Flags() []cli.Flag {
	return append([]cli.Flag{
		cli.StringFlag{Name: "name", EnvVar: variable("name"), Destination: &s.Name, Value: "John", Usage: "Name to greet, 1 to 256 bytes on one line"},
		number("requests", &s.Requests, 1, "Number of calls; 0: until interrupted"),
		number("concurrency", &s.Concurrency, 1, "Number of callers, which make the calls concurrently"),
		duration("wait", &s.Wait, 0, "Maximum wait for the registry and a server before the first call, for example 60s"),
		number("rate_limit", &s.RateLimit, 1, "Limiter: calls per second of all callers together; 0: no limit"),
		duration("hystrix_timeout", &s.HystrixTimeout, 1200*time.Millisecond,
			"Breaker: timeout of a call with all its retries, in whole milliseconds, for example 1200ms or 2s"),
		duration("hystrix_sleep_window", &s.HystrixSleepWindow, 2*time.Second,
			"Breaker: how long an open circuit rejects calls before it lets one call through; in whole milliseconds"),
		number("hystrix_error_percent", &s.HystrixErrorPercent, 10,
			"Breaker: failure rate over the last 10 s, in percent, at which the circuit opens"),
		number("hystrix_max_concurrent", &s.HystrixMaxConcurrent, 2, "Breaker: maximum number of calls in flight; the breaker rejects each further call"),
		number("hystrix_volume", &s.HystrixVolume, 1, "Breaker: minimum number of calls in the last 10 s before the circuit may open"),
		tracer.AddressFlag(&s.JaegerAddress),
		cli.BoolFlag{
			Name: "verbose", EnvVar: variable("verbose"), Destination: &s.Verbose,
			Usage: "Print a line per call on stderr: number, outcome, latency, node, trace ID, start, and the part of the latency before the last attempt, which includes the wait for the limiter",
		},
	}, s.TLS.Flags()...)
}

func number(name string, to *int, value int, usage string) cli.Flag {
	return cli.IntFlag{Name: name, EnvVar: variable(name), Destination: to, Value: value, Usage: usage}
}

func duration(name string, to *time.Duration, value time.Duration, usage string) cli.Flag {
	return cli.DurationFlag{Name: name, EnvVar: variable(name), Destination: to, Value: value, Usage: usage}
}

func variable(flag string) string { return "BASIS_" + strings.ToUpper(flag) }

// maxDuration is longer than any process runs. Hystrix adds the sleep window to the current time in
// nanoseconds. With a sleep window of more than about 235 years, the sum would overflow, and an
// open circuit would let every call through.
const maxDuration = 365 * 24 * time.Hour

// maxCallers is more callers than one process needs.
const maxCallers = 100_000

// Check returns an error about the first flag whose value is not valid. For --name, Check requires
// only that the value is UTF-8. The server checks the rest.
func (s *Settings) Check() error {
	if !utf8.ValidString(s.Name) {
		return fmt.Errorf("--name is %q; want UTF-8", s.Name)
	}
	for _, n := range []struct {
		flag            string
		value, min, max int
	}{
		{"requests", s.Requests, 0, math.MaxInt},
		{"concurrency", s.Concurrency, 1, maxCallers},
		{"rate_limit", s.RateLimit, 0, 1_000_000},
		{"hystrix_error_percent", s.HystrixErrorPercent, 1, 100},
		{"hystrix_max_concurrent", s.HystrixMaxConcurrent, 1, maxCallers},
		{"hystrix_volume", s.HystrixVolume, 1, math.MaxInt},
	} {
		if n.value < n.min {
			return fmt.Errorf("--%s is %d; want %d or more", n.flag, n.value, n.min)
		}
		if n.value > n.max {
			return fmt.Errorf("--%s is %d; want %d or less", n.flag, n.value, n.max)
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"hystrix_timeout", s.HystrixTimeout},
		{"hystrix_sleep_window", s.HystrixSleepWindow},
	} {
		if d.value < time.Millisecond || d.value%time.Millisecond != 0 {
			return fmt.Errorf("--%s is %v; want whole milliseconds, 1ms or more", d.flag, d.value)
		}
		if d.value > maxDuration {
			return fmt.Errorf("--%s is %v; want %v or less", d.flag, d.value, maxDuration)
		}
	}
	if s.Wait < 0 {
		return fmt.Errorf("--wait is %v; want 0 or more", s.Wait)
	}
	return tracer.CheckAddress(s.JaegerAddress)
}

// CallTimeout returns the time after which go-micro ends a call with all its retries. It is
// RequestTimeout if RequestTimeout is not 0. Otherwise it is go-micro's default of 5 s, or
// HystrixTimeout if HystrixTimeout is longer. If HystrixTimeout is shorter than CallTimeout, the
// breaker ends the call first.
func (s *Settings) CallTimeout() time.Duration {
	if s.RequestTimeout > 0 {
		return s.RequestTimeout
	}
	return max(s.HystrixTimeout, microclient.DefaultRequestTimeout)
}

// MaxRetries returns the number of retries whose back-offs fit into the timeout of a call. The
// first back-off of go-micro is 10 ms. Each further back-off is ten times as long as the previous
// one. During a back-off that does not fit, the call would time out, and the caller would not see
// the server's error.
func (s *Settings) MaxRetries() int {
	end := min(s.HystrixTimeout, s.CallTimeout())
	var waited time.Duration
	for n := 1; ; n++ {
		backoff, _ := microclient.DefaultBackoff(context.Background(), nil, n) // never fails
		if waited += backoff; waited >= end {
			return n - 1
		}
	}
}

// CheckRetries returns an error if the back-offs of n retries do not fit into the timeout of a
// call.
func (s *Settings) CheckRetries(n int) error {
	if fit := s.MaxRetries(); n > fit {
		backoff, _ := microclient.DefaultBackoff(context.Background(), nil, fit+1)
		return fmt.Errorf("--client_retries is %d; want %d or less: the back-off before retry %d is %v, and a call ends after %v (--hystrix_timeout %v, --client_request_timeout %v)",
			n, fit, fit+1, backoff, min(s.HystrixTimeout, s.CallTimeout()), s.HystrixTimeout, s.CallTimeout())
	}
	return nil
}
