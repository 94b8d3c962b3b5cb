package flags_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/cli"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/flags"
)

// parse returns the settings that result from the arguments args and the environment.
func parse(args ...string) (flags.Settings, error) {
	var s flags.Settings
	app := cli.NewApp()
	app.Flags = s.Flags()
	app.Action = func(*cli.Context) error { return s.Check() }
	err := app.Run(append([]string{"client"}, args...))
	return s, err
}

// TestMain removes the variables of the flags from the environment.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "BASIS_") || strings.HasPrefix(name, "JAEGER_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestDefaultsAreTheArticles(t *testing.T) {
	s, err := parse()
	require.NoError(t, err)
	require.Equal(t, flags.Settings{
		Name: "John", Requests: 1, Concurrency: 1, RateLimit: 1,
		HystrixTimeout: 1200 * time.Millisecond, HystrixSleepWindow: 2000 * time.Millisecond,
		HystrixErrorPercent: 10, HystrixMaxConcurrent: 2, HystrixVolume: 1,
		JaegerAddress: "localhost:6831",
	}, s)
}

func TestEverySettingHasAVariable(t *testing.T) {
	for key, value := range map[string]string{
		"BASIS_NAME": "Ann", "BASIS_REQUESTS": "3", "BASIS_CONCURRENCY": "4", "BASIS_RATE_LIMIT": "5", "BASIS_WAIT": "11s",
		"BASIS_HYSTRIX_TIMEOUT": "6ms", "BASIS_HYSTRIX_SLEEP_WINDOW": "7ms", "BASIS_HYSTRIX_ERROR_PERCENT": "8",
		"BASIS_HYSTRIX_MAX_CONCURRENT": "9", "BASIS_HYSTRIX_VOLUME": "10",
		"JAEGER_ADDRESS": "jaeger:1", "BASIS_VERBOSE": "true",
	} {
		t.Setenv(key, value)
	}
	s, err := parse("--requests=30") // a flag overrides its variable
	require.NoError(t, err)
	require.Equal(t, flags.Settings{
		Name: "Ann", Requests: 30, Concurrency: 4, RateLimit: 5, Wait: 11 * time.Second,
		HystrixTimeout: 6 * time.Millisecond, HystrixSleepWindow: 7 * time.Millisecond,
		HystrixErrorPercent: 8, HystrixMaxConcurrent: 9, HystrixVolume: 10,
		JaegerAddress: "jaeger:1", Verbose: true,
	}, s)
}

func TestOutOfRange(t *testing.T) {
	for _, test := range []struct{ arg, want string }{
		{"--requests=-1", "--requests is -1; want 0 or more"},
		{"--concurrency=0", "--concurrency is 0; want 1 or more"},
		{"--rate_limit=-1", "--rate_limit is -1; want 0 or more"},
		{"--hystrix_max_concurrent=0", "--hystrix_max_concurrent is 0; want 1 or more"},
		{"--hystrix_volume=0", "--hystrix_volume is 0; want 1 or more"},
		{"--hystrix_error_percent=0", "--hystrix_error_percent is 0; want 1 or more"},
		{"--hystrix_error_percent=101", "--hystrix_error_percent is 101; want 100 or less"},
		{"--concurrency=100001", "--concurrency is 100001; want 100000 or less"},
		{"--hystrix_max_concurrent=2000000000", "--hystrix_max_concurrent is 2000000000; want 100000 or less"},
		{"--rate_limit=1000001", "--rate_limit is 1000001; want 1000000 or less"},
		{"--name=\xff", `--name is "\xff"; want UTF-8`},
		{"--hystrix_timeout=0s", "--hystrix_timeout is 0s; want whole milliseconds, 1ms or more"},
		{"--hystrix_timeout=1500us", "--hystrix_timeout is 1.5ms; want whole milliseconds, 1ms or more"},
		{"--hystrix_sleep_window=-1s", "--hystrix_sleep_window is -1s; want whole milliseconds, 1ms or more"},
		{"--hystrix_timeout=8760h1s", "--hystrix_timeout is 8760h0m1s; want 8760h0m0s or less"},
		{"--hystrix_sleep_window=2562047h", "--hystrix_sleep_window is 2562047h0m0s; want 8760h0m0s or less"},
		{"--wait=-1s", "--wait is -1s; want 0 or more"},
		{"--jaeger_address=jaeger", `address of Jaeger "jaeger": address jaeger: missing port in address; want host:port, as in localhost:6831`},
	} {
		_, err := parse(test.arg)
		require.EqualError(t, err, test.want)
	}
}

// With the longest allowed sleep window, an open circuit rejects calls. With a window of 292 years,
// hystrix's addition overflows, and the open circuit lets every call through.
func TestTheLongestSleepWindowHolds(t *testing.T) {
	_, err := parse("--hystrix_sleep_window=8760h")
	require.NoError(t, err)
	for window, opens := range map[time.Duration]bool{8760 * time.Hour: true, 2562047 * time.Hour: false} {
		name := window.String()
		hystrix.ConfigureCommand(name, hystrix.CommandConfig{SleepWindow: int(window.Milliseconds()), RequestVolumeThreshold: 1, ErrorPercentThreshold: 1})
		circuit, _, err := hystrix.GetCircuit(name)
		require.NoError(t, err)
		fail := func() error {
			return hystrix.Do(name, func() error { return errors.New("no") }, nil)
		}
		require.Eventually(t, func() bool { _ = fail(); return circuit.IsOpen() }, time.Minute, time.Millisecond)
		require.Equal(t, opens, fail() == hystrix.ErrCircuitOpen, name)
	}
}

func TestCallTimeout(t *testing.T) {
	for _, test := range []struct{ breaker, request, want time.Duration }{
		{1200 * time.Millisecond, 0, 5 * time.Second},
		{time.Minute, 0, time.Minute},
		{time.Minute, 5 * time.Second, 5 * time.Second}, // go-micro's default, set by the flag
		{time.Second, time.Minute, time.Minute},
	} {
		s := flags.Settings{HystrixTimeout: test.breaker, RequestTimeout: test.request}
		require.Equal(t, test.want, s.CallTimeout())
	}
}

// The back-offs are 10 ms, 100 ms, 1 s, 10 s and so on.
func TestRetriesFitIntoTheTimeouts(t *testing.T) {
	for _, test := range []struct {
		breaker, request time.Duration
		want             int
	}{
		{1200 * time.Millisecond, 0, 3},
		{1110 * time.Millisecond, 0, 2},
		{110 * time.Millisecond, 0, 1},
		{10 * time.Millisecond, 0, 0},
		{time.Millisecond, 0, 0},
		{time.Minute, 0, 4},
		{time.Minute, 5 * time.Second, 3},
		{time.Second, time.Nanosecond, 0},
		{365 * 24 * time.Hour, 0, 10},
	} {
		s := flags.Settings{HystrixTimeout: test.breaker, RequestTimeout: test.request}
		require.Equal(t, test.want, s.MaxRetries(), "%+v", test)
		require.NoError(t, s.CheckRetries(test.want))
		require.Error(t, s.CheckRetries(test.want+1))
	}
	s := flags.Settings{HystrixTimeout: 1200 * time.Millisecond}
	require.EqualError(t, s.CheckRetries(9), "--client_retries is 9; want 3 or less: "+
		"the back-off before retry 4 is 10s, and a call ends after 1.2s (--hystrix_timeout 1.2s, --client_request_timeout 5s)")
}
