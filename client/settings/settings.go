// Package settings is the client's own command line: flags, variables,
// defaults and limits.
package settings

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/micro/cli"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/mtls"
	"github.com/gomicroexample/basis/tracer"
)

// Settings are the values of the client's flags. The article's are the
// defaults.
type Settings struct {
	Name        string // who to greet
	Requests    int    // how many calls to make; 0 is no end
	Concurrency int    // how many callers share them
	RateLimit   int    // calls a second, of all callers together; 0 is no limit

	Wait time.Duration // how long to wait for a server before the first call

	HystrixTimeout       time.Duration // a call that takes longer has failed
	HystrixSleepWindow   time.Duration // how long an open circuit refuses before it tries one call
	HystrixErrorPercent  int           // failures in the last 10 s, in percent, that open the circuit
	HystrixMaxConcurrent int           // calls under way at once; more are refused
	HystrixVolume        int           // calls in the last 10 s below which the circuit stays closed

	JaegerAddress string     // host:port
	Verbose       bool       // a line per call
	TLS           mtls.Files // for calls
}

// Flags returns the flags that fill s.
func (s *Settings) Flags() []cli.Flag {
	return append([]cli.Flag{
		cli.StringFlag{
			Name: "name", EnvVar: "BASIS_NAME", Value: "John", Destination: &s.Name,
			Usage: "Who to greet, 1 to 256 bytes on one line",
		},
		cli.IntFlag{
			Name: "requests", EnvVar: "BASIS_REQUESTS", Value: 1, Destination: &s.Requests,
			Usage: "How many calls to make; 0: until interrupted",
		},
		cli.IntFlag{
			Name: "concurrency", EnvVar: "BASIS_CONCURRENCY", Value: 1, Destination: &s.Concurrency,
			Usage: "How many callers make them at once",
		},
		cli.DurationFlag{
			Name: "wait", EnvVar: "BASIS_WAIT", Destination: &s.Wait,
			Usage: "How long to wait for the registry and a server before the first call, as in 60s",
		},
		cli.IntFlag{
			Name: "rate_limit", EnvVar: "BASIS_RATE_LIMIT", Value: 1, Destination: &s.RateLimit,
			Usage: "Limiter: calls a second, of all callers together; 0: no limit",
		},
		cli.DurationFlag{
			Name: "hystrix_timeout", EnvVar: "BASIS_HYSTRIX_TIMEOUT", Value: 1200 * time.Millisecond, Destination: &s.HystrixTimeout,
			Usage: "Breaker: a call that takes longer has failed; in whole milliseconds, as in 1200ms or 2s",
		},
		cli.DurationFlag{
			Name: "hystrix_sleep_window", EnvVar: "BASIS_HYSTRIX_SLEEP_WINDOW", Value: 2 * time.Second, Destination: &s.HystrixSleepWindow,
			Usage: "Breaker: how long an open circuit refuses calls before it lets one try; in whole milliseconds",
		},
		cli.IntFlag{
			Name: "hystrix_error_percent", EnvVar: "BASIS_HYSTRIX_ERROR_PERCENT", Value: 10, Destination: &s.HystrixErrorPercent,
			Usage: "Breaker: percent of the last 10 s' calls that, failed, open the circuit",
		},
		cli.IntFlag{
			Name: "hystrix_max_concurrent", EnvVar: "BASIS_HYSTRIX_MAX_CONCURRENT", Value: 2, Destination: &s.HystrixMaxConcurrent,
			Usage: "Breaker: calls under way at once; more are refused",
		},
		cli.IntFlag{
			Name: "hystrix_volume", EnvVar: "BASIS_HYSTRIX_VOLUME", Value: 1, Destination: &s.HystrixVolume,
			Usage: "Breaker: calls in the last 10 s before the circuit may open",
		},
		cmdline.JaegerAddress(&s.JaegerAddress),
		cli.BoolFlag{
			Name: "verbose", EnvVar: "BASIS_VERBOSE", Destination: &s.Verbose,
			Usage: "A line per call on stderr: number, outcome, latency, node, trace, start, and how long of the latency it waited",
		},
	}, s.TLS.Flags()...)
}

// maxCallers is more callers than one process has a use for.
const maxCallers = 100_000

// Check returns an error that names the first flag whose value is out of range.
// How long a name may be, and of what, is the server's to check.
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
	}
	if s.Wait < 0 {
		return fmt.Errorf("--wait is %v; want 0 or more", s.Wait)
	}
	return tracer.CheckAddress(s.JaegerAddress)
}
