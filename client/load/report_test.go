package load

import (
	"bytes"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/errors"
	"github.com/stretchr/testify/require"
)

var bad = errors.BadRequest("go.micro.srv.basis", "name is empty")

var start = time.Date(2018, 12, 24, 12, 30, 15, 250_000_000, time.FixedZone("CET", 3600))

var results = []Result{
	{Number: 1, Answer: "Hello John", Start: start, Latency: 2 * time.Millisecond, Waited: time.Millisecond, Node: "127.0.0.1:1", Trace: "a1"},
	{Number: 3, Answer: "Hello John", Start: start, Latency: 4 * time.Millisecond, Node: "127.0.0.1:2", Trace: "a3"},
	{Number: 2, Err: bad, Start: start, Latency: time.Millisecond, Node: "127.0.0.1:1", Trace: "a2"},
	{Number: 4, Err: hystrix.ErrCircuitOpen, Start: start},
}

func TestAnswersGoToOneStreamAndFailuresToTheOther(t *testing.T) {
	var answers, notes bytes.Buffer
	r := newReport(&answers, &notes, false)
	for _, c := range results {
		r.Add(c)
	}
	require.Equal(t, "Hello John\nHello John\n", answers.String())
	require.Equal(t, "client: call 2: 400 Bad Request: name is empty (go.micro.srv.basis)\n"+
		"client: call 4: hystrix: circuit open\n", notes.String())
	require.Equal(t, 4, r.Made)
	require.Equal(t, 2, r.Failed)
}

func TestTextFromOthersStaysOnItsLine(t *testing.T) {
	var answers, notes bytes.Buffer
	r := newReport(&answers, &notes, true)
	r.Add(Result{Number: 1, Answer: "Hello\nHello \x1b[2JAnn", Node: "127.0.0.1:1\nforged", Trace: "a1"})
	r.Summarize()
	require.Equal(t, `Hello\nHello \x1b[2JAnn`+"\n", answers.String())
	require.NotRegexp(t, `(?m)^forged`, notes.String())
	require.Regexp(t, `node=127.0.0.1:1\\nforged trace=a1 start=`, notes.String())
	require.Regexp(t, `  127.0.0.1:1\\nforged +1\n`, notes.String())
}

func TestVerboseIsALinePerCall(t *testing.T) {
	var answers, notes bytes.Buffer
	r := newReport(&answers, &notes, true)
	for _, c := range results {
		r.Add(c)
	}
	require.Equal(t, `call=1 outcome="ok" latency=2ms node=127.0.0.1:1 trace=a1 start=2018-12-24T11:30:15.250Z waited=1ms
call=3 outcome="ok" latency=4ms node=127.0.0.1:2 trace=a3 start=2018-12-24T11:30:15.250Z waited=0s
call=2 outcome="400 Bad Request: name is empty (go.micro.srv.basis)" latency=1ms node=127.0.0.1:1 trace=a2 start=2018-12-24T11:30:15.250Z waited=0s
call=4 outcome="hystrix: circuit open" latency=0s node=none trace=none start=2018-12-24T11:30:15.250Z waited=0s
`, notes.String())
}

func TestSummary(t *testing.T) {
	var answers, notes bytes.Buffer
	r := newReport(&answers, &notes, false)
	for _, c := range results {
		r.Add(c)
	}
	notes.Reset()
	r.Summarize()
	got := regexp.MustCompile(`in .*, .* a second`).ReplaceAllString(notes.String(), "in TIME, RATE a second")
	require.Equal(t, `calls      4 in TIME, RATE a second
failed     2
  400 Bad Request                1
  hystrix: circuit open          1
latency    p50 2ms, p99 4.001ms, max 4.001ms
nodes      2
  127.0.0.1:1                    2
  127.0.0.1:2                    1
`, got)
}

func TestASummaryOfNothing(t *testing.T) {
	var notes bytes.Buffer
	newReport(&notes, &notes, false).Summarize()
	require.NotContains(t, notes.String(), "latency")
	require.NotContains(t, notes.String(), "NaN")
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAnswersThatCannotBeWrittenAreAnError(t *testing.T) {
	var notes bytes.Buffer
	r := newReport(full{}, &notes, false)
	require.NoError(t, r.Err)
	r.Add(results[0])
	r.Add(results[1])
	require.ErrorContains(t, r.Err, "writing answers: ")
}

func TestParseLinesReadsWhatAddWrote(t *testing.T) {
	var answers, notes bytes.Buffer
	r := newReport(&answers, &notes, true)
	r.Add(results[0])
	r.Add(Result{Number: 2, Err: errors.InternalServerError("srv", "a \"quoted\"\nline"), Start: start, Latency: 90 * time.Second})
	r.Summarize()
	got, err := ParseLines(notes.String())
	require.NoError(t, err)
	at := start.UTC()
	require.Equal(t, []Line{
		{Number: 1, Outcome: "ok", Latency: 2 * time.Millisecond, Waited: time.Millisecond, Node: "127.0.0.1:1", Trace: "a1", Start: at},
		{Number: 2, Outcome: `500 Internal Server Error: a "quoted"\nline (srv)`, Latency: 90 * time.Second, Node: "none", Trace: "none", Start: at},
	}, got)
}
