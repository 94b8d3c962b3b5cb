package timeline

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a response of Jaeger's API. Its trace has a call with two attempts, and a span whose
// parent is missing. The first attempt failed.
const answer = `{"data":[{
	"traceID":"a1",
	"processes":{"p1":{"serviceName":"client"},"p2":{"serviceName":"srv"}},
	"spans":[
		{"spanID":"6","operationName":"Lost","processID":"p2","startTime":1000000,"duration":1000,"references":[{"refType":"CHILD_OF","spanID":"9"}]},
		{"spanID":"5","operationName":"Hello","processID":"p2","startTime":1006000,"duration":1000,"references":[{"refType":"CHILD_OF","spanID":"4"}]},
		{"spanID":"4","operationName":"Basis.Hello","processID":"p2","startTime":1005000,"duration":3000,"references":[{"refType":"CHILD_OF","spanID":"2"}]},
		{"spanID":"3","operationName":"Basis.Hello","processID":"p2","startTime":1002000,"duration":1500,"references":[{"refType":"CHILD_OF","spanID":"2"}],"tags":[{"key":"error","type":"bool","value":true}]},
		{"spanID":"1","operationName":"call","processID":"p1","startTime":1000000,"duration":10000,"references":[],"tags":[{"key":"req","type":"string","value":"x"}]},
		{"spanID":"2","operationName":"Basis.Hello","processID":"p1","startTime":1001000,"duration":8000,"references":[{"refType":"CHILD_OF","spanID":"1"}]}
	]}]}`

func TestParse(t *testing.T) {
	spans, err := Parse([]byte(answer))
	require.NoError(t, err)
	none := map[string]string{}
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000 + ms)) }
	require.Equal(t, []Span{
		{Service: "client", Operation: "call", Start: at(0), Duration: 10 * time.Millisecond, Tags: map[string]string{"req": "x"}},
		{Service: "client", Operation: "Basis.Hello", Parent: "call", Depth: 1, Start: at(1), Duration: 8 * time.Millisecond, Tags: none},
		{Service: "srv", Operation: "Basis.Hello", Parent: "Basis.Hello", Depth: 2, Start: at(2), Duration: 1500 * time.Microsecond, Tags: map[string]string{"error": "true"}},
		{Service: "srv", Operation: "Basis.Hello", Parent: "Basis.Hello", Depth: 2, Start: at(5), Duration: 3 * time.Millisecond, Tags: none},
		{Service: "srv", Operation: "Hello", Parent: "Basis.Hello", Depth: 3, Start: at(6), Duration: time.Millisecond, Tags: none},
		{Service: "srv", Operation: "Lost", Missing: "9", Start: at(0), Duration: time.Millisecond, Tags: none},
	}, spans)

	_, err = Parse([]byte(`{"data":[]}`))
	require.EqualError(t, err, "answer of Jaeger: 0 traces, not 1")
	_, err = Parse([]byte(`<html>`))
	require.ErrorContains(t, err, "answer of Jaeger: ")
}

func TestDraw(t *testing.T) {
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	span := func(depth int, service, operation string, start, took float64) Span {
		return Span{Service: service, Operation: operation, Depth: depth, Start: time.Unix(1, 0).Add(ms(start)), Duration: ms(took)}
	}
	failed := func(s Span) Span {
		s.Tags = map[string]string{"error": "true"}
		return s
	}
	lost := func(s Span) Span {
		s.Missing = "9"
		return s
	}
	for _, test := range []struct {
		name  string
		width int
		spans []Span
		want  string
	}{
		{"a call that was retried", 60, []Span{
			span(0, "client", "call", 0, 10),
			span(1, "client", "Basis.Hello", 1, 8),
			failed(span(2, "srv", "Basis.Hello", 2, 1.5)),
			span(2, "srv", "Basis.Hello", 5, 3),
			span(3, "srv", "Hello", 6, 1),
		}, `
service  span             start   took
client   call                0s   10ms  █████████████
client     Basis.Hello      1ms    8ms   ██████████
srv          Basis.Hello    2ms  1.5ms    ██           error
srv          Basis.Hello    5ms    3ms        ████
srv            Hello        6ms    1ms         ██
`},
		{"a parent that is missing", 40, []Span{
			span(0, "client", "call", 0, 1),
			lost(span(0, "srv", "Hello", 0.5, 0.25)),
		}, `
service  span   start   took
client   call      0s    1ms  ██████████
srv      Hello  500µs  250µs       ██
The parent of Hello, span 9, is not in the trace: it has not ended, or was lost.
`},
		{"clocks that differ", 40, []Span{
			span(0, "client", "call", 0, 10),
			span(1, "srv", "Hello", -10, 5),
		}, `
service  span     start  took
client   call        0s  10ms       █████
srv        Hello  -10ms   5ms  ██
Hello began 10ms before its parent span: the clocks of client and srv differ.
`},
		{"names that are long", 50, []Span{
			span(0, "go.micro.client.of.something.else", "call", 0, 1),
			span(1, "srv", "go.micro.srv.basis.Basis.Hello", 0, 1),
			span(2, "srv", "two", 0, 1),
			span(3, "srv", "three", 0, 1),
			span(4, "srv", "four", 0, 1),
			span(5, "srv", "five", 0, 1),
			span(1, "srv", "山田太郎山田太郎", 0, 1),
		}, `
service                   span        start  took
go.micro.client.of.some…  call           0s   1ms  ██████████
srv                         …s.Hello     0s   1ms  ██████████
srv                           two        0s   1ms  ██████████
srv                             …ree     0s   1ms  ██████████
srv                               …r     0s   1ms  ██████████
srv                                …     0s   1ms  ██████████
srv                         … 田太郎     0s   1ms  ██████████
`},
		{"names that break lines", 60, []Span{
			lost(span(0, "a\nb", "\x1b[2J\u2028", 0, 0)),
		}, `
service  span           start  took
a\nb     \x1b[2J\u2028     0s    0s  █
The parent of \x1b[2J\u2028, span 9, is not in the trace: it has not ended, or was lost.
`},
		{"nothing", 40, nil, "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, strings.TrimPrefix(test.want, "\n"), Draw(test.spans, test.width))
		})
	}
}

func TestLastIsTheNewest(t *testing.T) {
	var asked string
	body := `{"data":[
		{"traceID":"a1","spans":[{"startTime":1},{"startTime":4}]},
		{"traceID":"a2","spans":[{"startTime":5}]},
		{"traceID":"a3","spans":[{"startTime":3}]}]}`
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query().Get("service")
		_, _ = w.Write([]byte(body))
	}))
	defer api.Close()
	id, err := Last(context.Background(), api.URL, "a&b")
	require.NoError(t, err)
	require.Equal(t, "a2", id)
	require.Equal(t, "a&b", asked)

	body = `{"data":[]}`
	id, err = Last(context.Background(), api.URL, "a&b")
	require.NoError(t, err)
	require.Empty(t, id)

	body = `<html>`
	_, err = Last(context.Background(), api.URL, "a&b")
	require.ErrorContains(t, err, "answer of Jaeger: ")
}

func TestAwait(t *testing.T) {
	asked := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 || r.URL.Path != "/api/traces/a1" {
			http.Error(w, "trace not found", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spans, err := Await(ctx, api.URL, "a1", 6)
	require.NoError(t, err)
	require.Len(t, spans, 6)
	require.Equal(t, 3, asked)

	for id, want := range map[string]string{
		"a1": "no trace a1 at " + api.URL + " with 7 or more spans in time: it has 6 spans",
		"a2": "no trace a2 at " + api.URL + " with 7 or more spans in time: " + api.URL + "/api/traces/a2: 404 Not Found: trace not found",
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = Await(ctx, api.URL, id, 7)
		cancel()
		require.EqualError(t, err, want)
	}
}
