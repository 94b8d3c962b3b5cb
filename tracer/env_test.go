package tracer_test

import (
	"bytes"
	"log"
	"os"
	"sync"
	"testing"

	"github.com/micro/cli"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/tracer"
)

// captureLog returns a function that returns the text logged since the call of captureLog.
func captureLog(t *testing.T) func() string {
	t.Helper()
	w := &logWriter{}
	log.SetOutput(w)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	return w.text
}

type logWriter struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buffer.Write(p)
}

func (w *logWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buffer.String()
}

// Kubernetes sets these variables in every pod of a namespace with services named jaeger and
// jaeger-agent.
func TestVariablesOfKubernetes(t *testing.T) {
	for _, prefix := range []string{"JAEGER_", "JAEGER_AGENT_"} {
		for name, value := range map[string]string{
			"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "6831", "SERVICE_PORT_COMPACT": "6831",
			"PORT": "udp://10.0.0.1:6831", "PORT_6831_UDP": "udp://10.0.0.1:6831", "PORT_6831_UDP_PROTO": "udp",
			"PORT_6831_UDP_PORT": "6831", "PORT_6831_UDP_ADDR": "10.0.0.1",
		} {
			t.Setenv(prefix+name, value)
		}
	}
	t.Setenv("JAEGER_TAGS", "zone=a") // this variable and those of the reporter must still have effect
	t.Setenv("JAEGER_REPORTER_LOG_SPANS", "true")
	for _, port := range []string{"udp://10.0.0.1:6831", "tcp://10.0.0.1:6831"} {
		t.Setenv("JAEGER_AGENT_PORT", port)
		logged := captureLog(t)
		require.Equal(t, tracer.DefaultAddress, jaegerAddress(t))
		a := agent(t)
		tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
		require.NoError(t, err)
		tr.StartSpan("span").Finish()
		require.NoError(t, closer.Close())
		var tags []string
		for _, tag := range batches(t, a)[0].Process.Tags {
			tags = append(tags, tag.Key+"="+tag.GetVStr())
		}
		require.Contains(t, tags, "zone=a")
		require.Contains(t, logged(), "Reporting span")
		require.NotContains(t, logged(), "effect")
	}
}

// jaegerAddress returns the value of --jaeger_address for a program with these arguments.
func jaegerAddress(t *testing.T, args ...string) (address string) {
	t.Helper()
	app := cli.NewApp()
	app.Flags = []cli.Flag{tracer.AddressFlag(&address)}
	app.Action = func(*cli.Context) error { return nil }
	require.NoError(t, app.Run(append([]string{"program"}, args...)))
	return address
}

func TestTheAgentsVariablesAreTheDefaultAddress(t *testing.T) {
	for _, test := range []struct{ host, port, want string }{
		{"", "", "localhost:6831"},
		{"10.0.0.7", "", "10.0.0.7:6831"},
		{"", "6832", "localhost:6832"},
		{"jaeger", "6832", "jaeger:6832"},
		{"fd00::7", "", "[fd00::7]:6831"},
		{"[fd00::7]", "", "[fd00::7]:6831"},
	} {
		t.Setenv("JAEGER_AGENT_HOST", test.host)
		t.Setenv("JAEGER_AGENT_PORT", test.port)
		require.Equal(t, test.want, jaegerAddress(t))
		require.NoError(t, tracer.CheckAddress(test.want))
	}
	require.Equal(t, "flag:1", jaegerAddress(t, "--jaeger_address=flag:1"))
	t.Setenv("JAEGER_ADDRESS", "variable:1")
	require.Equal(t, "variable:1", jaegerAddress(t))
	require.Equal(t, "flag:1", jaegerAddress(t, "--jaeger_address=flag:1"))
}

func TestVariablesWithoutEffectAreNamedOnce(t *testing.T) {
	for variable, value := range map[string]string{
		"JAEGER_AGENT_HOST": "192.0.2.1", "JAEGER_AGENT_PORT": "agent", "JAEGER_RPC_METRICS": "true",
		"JAEGER_REPORTER_ATTEMPT_RECONNECTING_DISABLED": "perhaps", "JAEGER_REPORTER_ATTEMPT_RECONNECT_INTERVAL": "often",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			logged := captureLog(t)
			a := agent(t)
			tr, closer, err := tracer.NewTracer("svc", a.SpanServerAddr())
			require.NoError(t, err)
			tr.StartSpan("span").Finish()
			require.NoError(t, closer.Close())
			batches(t, a)
			require.Regexp(t, `^.*jaeger: .*`+variable+`.* no effect.*\n$`, logged())
		})
	}
}

func TestDisabled(t *testing.T) {
	t.Setenv("JAEGER_DISABLED", "true")
	tr, closer, err := tracer.NewTracer("svc", tracer.DefaultAddress)
	require.NoError(t, err)
	require.Equal(t, opentracing.NoopTracer{}, tr)
	require.NoError(t, closer.Close()) // TestMain checks that no goroutine is left
}
