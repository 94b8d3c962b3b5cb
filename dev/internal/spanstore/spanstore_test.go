package spanstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	otlog "github.com/opentracing/opentracing-go/log"
	"github.com/stretchr/testify/require"
	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/thrift"
	"github.com/uber/jaeger-client-go/thrift-gen/agent"
	thriftgen "github.com/uber/jaeger-client-go/thrift-gen/jaeger"
	"go.uber.org/goleak"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/jaegerui"
	"github.com/gomicroexample/basis/dev/internal/timeline"
	"github.com/gomicroexample/basis/tracer"
)

func TestMain(m *testing.M) {
	status := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := Start(0, 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		require.NoError(t, s.Close())
	})
	return s
}

// newTracer returns the pair's tracer and a function that closes the tracer. Closing sends the
// finished spans to s.
func newTracer(t *testing.T, s *Server, service string) (opentracing.Tracer, func()) {
	t.Helper()
	tr, closer, err := tracer.NewTracer(service, s.Addr)
	require.NoError(t, err)
	return tr, func() { require.NoError(t, closer.Close()) }
}

// call creates a trace with two spans, of the services "client" and "server". It returns the
// trace's ID once s has both spans.
func call(t *testing.T, s *Server, began time.Time, took time.Duration) string {
	t.Helper()
	client, closeClient := newTracer(t, s, "client")
	server, closeServer := newTracer(t, s, "server")
	root := client.StartSpan("call", opentracing.StartTime(began))
	root.SetTag("took", took.String())
	handled := server.StartSpan("Hello", opentracing.ChildOf(root.Context()), opentracing.StartTime(began))
	handled.FinishWithOptions(opentracing.FinishOptions{FinishTime: began.Add(took / 2)})
	root.FinishWithOptions(opentracing.FinishOptions{FinishTime: began.Add(took)})
	closeServer()
	closeClient()
	id := root.Context().(jaeger.SpanContext).TraceID().String()
	await(t, s, id, 2)
	return id
}

func await(t *testing.T, s *Server, id string, n int) []timeline.Span {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	spans, err := timeline.Await(ctx, s.URL, id, n)
	require.NoError(t, err)
	require.Len(t, spans, n)
	return spans
}

// get returns the status and the response of a GET of path.
func get(t *testing.T, s *Server, path string) (status int, answer map[string]any) {
	t.Helper()
	rsp, err := http.Get(s.URL + path)
	require.NoError(t, err)
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &answer), "%s: %s", path, body)
	return rsp.StatusCode, answer
}

// data requires that a GET of path succeeds, and returns the data in the response.
func data(t *testing.T, s *Server, path string) any {
	t.Helper()
	status, answer := get(t, s, path)
	require.Equal(t, http.StatusOK, status, "%s: %v", path, answer)
	return answer["data"]
}

// found returns the IDs of the traces that a search with params finds.
func found(t *testing.T, s *Server, params ...string) []string {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(params); i += 2 {
		values.Add(params[i], params[i+1])
	}
	ids := []string{}
	for _, trace := range data(t, s, "/api/traces?"+values.Encode()).([]any) {
		ids = append(ids, trace.(map[string]any)["traceID"].(string))
	}
	return ids
}

func TestATraceIsShownAsJaegerShowsIt(t *testing.T) {
	s := newServer(t)
	client, closeClient := newTracer(t, s, "client")
	server, closeServer := newTracer(t, s, "server")
	began := time.UnixMicro(1_700_000_000_000_000)
	root := client.StartSpan("call", opentracing.StartTime(began))
	first := root.Context().(jaeger.SpanContext)
	id := first.TraceID().String()
	handled := server.StartSpan("Hello", opentracing.ChildOf(first), opentracing.StartTime(began.Add(time.Millisecond)))
	for key, value := range map[string]any{"text": "a", "yes": true, "many": 7, "part": 1.5, "nan": math.NaN()} {
		handled.SetTag(key, value)
	}
	ext.Error.Set(handled, true)
	handled.FinishWithOptions(opentracing.FinishOptions{FinishTime: began.Add(3 * time.Millisecond), LogRecords: []opentracing.LogRecord{
		{Timestamp: began.Add(2 * time.Millisecond), Fields: []otlog.Field{otlog.String("event", "logged")}},
	}})
	root.FinishWithOptions(opentracing.FinishOptions{FinishTime: began.Add(4 * time.Millisecond)})
	closeServer()
	closeClient()

	spans := await(t, s, id, 2)
	require.Equal(t, "client", spans[0].Service)
	require.Equal(t, "call", spans[0].Operation)
	require.Equal(t, 4*time.Millisecond, spans[0].Duration)
	require.True(t, spans[0].Start.Equal(began))
	require.Equal(t, "server", spans[1].Service)
	require.Equal(t, "call", spans[1].Parent)
	require.Equal(t, "true", spans[1].Tags["error"])

	trace := data(t, s, "/api/traces/"+id).([]any)[0].(map[string]any)
	require.Equal(t, id, trace["traceID"])
	require.Len(t, trace["processes"], 2)
	for _, shown := range trace["spans"].([]any) {
		span := shown.(map[string]any)
		require.Equal(t, id, span["traceID"])
		process := trace["processes"].(map[string]any)[span["processID"].(string)].(map[string]any)
		keys := []any{}
		for _, tag := range process["tags"].([]any) {
			keys = append(keys, tag.(map[string]any)["key"])
		}
		require.Subset(t, keys, []any{"jaeger.version", "hostname", "ip"})
		if span["operationName"] == "call" {
			require.Equal(t, "client", process["serviceName"])
			require.Empty(t, span["references"])
			require.IsType(t, []any{}, span["references"], "the UI iterates over it")
			require.IsType(t, []any{}, span["logs"], "the UI iterates over it")
			continue
		}
		require.Equal(t, "server", process["serviceName"])
		require.Equal(t, []any{map[string]any{"refType": "CHILD_OF", "traceID": id, "spanID": fmt.Sprintf("%016x", uint64(first.SpanID()))}}, span["references"])
		require.EqualValues(t, began.Add(time.Millisecond).UnixMicro(), span["startTime"])
		require.EqualValues(t, 2000, span["duration"])
		require.Subset(t, span["tags"], []any{
			map[string]any{"key": "text", "type": "string", "value": "a"},
			map[string]any{"key": "yes", "type": "bool", "value": true},
			map[string]any{"key": "many", "type": "int64", "value": 7.},
			map[string]any{"key": "part", "type": "float64", "value": 1.5},
			map[string]any{"key": "nan", "type": "string", "value": "NaN"},
			map[string]any{"key": "error", "type": "bool", "value": true},
		})
		require.Equal(t, []any{map[string]any{
			"timestamp": float64(began.Add(2 * time.Millisecond).UnixMicro()),
			"fields":    []any{map[string]any{"key": "event", "type": "string", "value": "logged"}},
		}}, span["logs"])
	}
}

func TestTracesAreFoundByWhatTheSearchFormAsksFor(t *testing.T) {
	s := newServer(t)
	require.Equal(t, []any{}, data(t, s, "/api/services"), "none yet, and not null")
	now := time.Now().Truncate(time.Microsecond)
	old := call(t, s, now.Add(-time.Hour), time.Millisecond)
	fast := call(t, s, now.Add(-time.Minute), 2*time.Millisecond)
	slow := call(t, s, now, time.Second)

	require.Equal(t, []any{"client", "server"}, data(t, s, "/api/services"))
	require.Equal(t, []any{"Hello"}, data(t, s, "/api/services/server/operations"))
	require.Equal(t, []any{map[string]any{"name": "call", "spanKind": ""}}, data(t, s, "/api/operations?service=client"))
	require.Equal(t, []any{}, data(t, s, "/api/services/nobody/operations"))

	micros := func(at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }
	for _, test := range []struct {
		params []string
		want   []string
	}{
		{[]string{"service", "client"}, []string{slow, fast, old}},
		{[]string{"service", "server", "lookback", "1h", "minDuration", "", "maxDuration", ""}, []string{slow, fast, old}},
		{[]string{"service", "nobody"}, []string{}},
		{[]string{"service", "client", "limit", "2"}, []string{slow, fast}},
		{[]string{"service", "client", "operation", "call"}, []string{slow, fast, old}},
		{[]string{"service", "client", "operation", "Hello"}, []string{}},
		{[]string{"service", "client", "start", micros(now.Add(-2 * time.Minute))}, []string{slow, fast}},
		{[]string{"service", "client", "end", micros(now.Add(-2 * time.Minute))}, []string{old}},
		{[]string{"service", "client", "minDuration", "2ms"}, []string{slow, fast}},
		{[]string{"service", "client", "maxDuration", "2ms"}, []string{fast, old}},
		{[]string{"service", "client", "minDuration", "1.5ms", "maxDuration", "900ms"}, []string{fast}},
		{[]string{"service", "server", "minDuration", "600ms"}, []string{}}, // the span of "server" took 500 ms
		{[]string{"service", "client", "tags", `{"took":"1s"}`}, []string{slow}},
		{[]string{"service", "client", "tags", `{"took":"1s","other":"1"}`}, []string{}},
		{[]string{"service", "server", "tags", `{"took":"1s"}`}, []string{}}, // the tag is on the span of "client"
		{[]string{"service", "client", "tag", "took:1s"}, []string{slow}},
		{[]string{"service", "client", "tags", `{"sampler.param":"true"}`}, []string{slow, fast, old}},
		{[]string{"service", "client", "tags", `{"jaeger.version":"Go-2.30.0"}`}, []string{slow, fast, old}}, // a tag of the process
		{[]string{"traceID", old, "traceID", "1234", "traceID", slow}, []string{old, slow}},
	} {
		require.Equal(t, test.want, found(t, s, test.params...), "%q", test.params)
	}
	last, err := timeline.Last(t.Context(), s.URL, "client")
	require.NoError(t, err)
	require.Equal(t, slow, last)
	require.Equal(t, []any{map[string]any{"parent": "client", "child": "server", "callCount": 3.}}, data(t, s, "/api/dependencies?endTs=1&lookback=1"))
}

// If a span and its parent are of the same service, dependencies does not count a call.
func TestDependenciesAreBetweenServices(t *testing.T) {
	st := newStore(10)
	add := func(id, parent, service string) {
		s := &span{SpanID: id, process: &sender{ServiceName: service}}
		if parent != "" {
			s.References = []reference{{RefType: childOf, SpanID: parent}}
		}
		st.add(s)
	}
	add("1", "", "client")
	add("2", "1", "client")
	add("3", "2", "server")
	add("4", "3", "server")
	add("5", "unknown", "server")
	require.Equal(t, []link{{"client", "server", 1}}, st.dependencies())
}

func TestAMistakeInASearchIsAnswered(t *testing.T) {
	s := newServer(t)
	for path, want := range map[string]struct {
		status int
		msg    string
	}{
		"/api/traces":                                  {400, "parameter 'service' is required"},
		"/api/traces?service=a&tag=b":                  {400, "malformed 'tag' parameter, expecting key:value, received: b"},
		"/api/traces?service=a&tags=b":                 {400, "malformed 'tags' parameter, expecting an object of strings: "},
		"/api/traces?service=a&minDuration=1":          {400, "unable to parse param 'minDuration': "},
		"/api/traces?service=a&maxDuration=x":          {400, "unable to parse param 'maxDuration': "},
		"/api/traces?service=a&start=x":                {400, "unable to parse param 'start': "},
		"/api/traces?service=a&end=x":                  {400, "unable to parse param 'end': "},
		"/api/traces?service=a&limit=-1":               {400, "unable to parse param 'limit': "},
		"/api/traces?traceID=x":                        {400, `"x" is not a trace ID; want 1 to 32 hexadecimal digits`},
		"/api/traces/" + strings.Repeat("1", 33):       {400, " is not a trace ID; want 1 to 32 hexadecimal digits"},
		"/api/traces/x":                                {400, `"x" is not a trace ID; want 1 to 32 hexadecimal digits`},
		"/api/traces/" + strings.Repeat("0", 31) + "1": {404, "trace not found"},
		"/api/quality-metrics":                         {404, "the demo's memory does not implement GET /api/quality-metrics"},
		"/analytics/v1/dependencies":                   {404, "the demo's memory does not implement GET /analytics/v1/dependencies"},
	} {
		status, answer := get(t, s, path)
		require.Equal(t, want.status, status, path)
		require.Nil(t, answer["data"], path)
		first := answer["errors"].([]any)[0].(map[string]any)
		require.EqualValues(t, want.status, first["code"], path)
		require.Contains(t, first["msg"], want.msg, path)
	}
}

func TestATraceIsFoundByAShortOrLongID(t *testing.T) {
	st := newStore(10)
	st.add(&span{id: traceID{0, 0xabc}, process: &sender{}})
	st.add(&span{id: traceID{1, 0xabc}, process: &sender{}})
	for text, want := range map[string]traceID{
		"abc": {0, 0xabc}, "ABC": {0, 0xabc}, "0000000000000abc": {0, 0xabc}, "00000000000000000000000000000abc": {0, 0xabc},
		"10000000000000abc": {1, 0xabc}, "00000000000000010000000000000abc": {1, 0xabc},
	} {
		id, err := parseTraceID(text)
		require.NoError(t, err)
		require.Equal(t, want, id)
		require.Len(t, st.get(id), 1, text)
	}
	require.Equal(t, "0000000000000abc", traceID{0, 0xabc}.String())
	require.Equal(t, "00000000000000010000000000000abc", traceID{1, 0xabc}.String())
}

func TestTheUIHasAPageForEachOfItsPaths(t *testing.T) {
	s := newServer(t)
	require.NoError(t, jaegerui.Check(t.Context(), s.URL))
	for _, path := range []string{"/search?service=x", "/trace/1", "/dependencies"} {
		page, err := backend.Get(t.Context(), s.URL+path)
		require.NoError(t, err, path)
		require.Contains(t, string(page), `Jaeger's UI over the demo's memory`)
	}
}

func TestTheOldestTracesMakeRoom(t *testing.T) {
	st := newStore(1000)
	for n := range uint64(100) {
		for range 3 {
			st.add(&span{id: traceID{low: n}, size: 100, process: &sender{ServiceName: fmt.Sprint(n)}})
		}
	}
	require.Equal(t, []string{"97", "98", "99"}, st.services())
	require.Len(t, st.traces, 3)
	require.Len(t, st.oldest, 3)
	for range 1000 { // spans of one trace that exceeds the limit
		st.add(&span{id: traceID{low: 200}, size: 100, process: &sender{ServiceName: "200"}})
		require.LessOrEqual(t, st.size, 1000)
	}
	total := 0
	for _, spans := range st.all() {
		total += 100 * len(spans)
	}
	require.Equal(t, st.size, total)
}

// The limit is for the bytes of the stored datagrams, not for the number of spans.
func TestTheLimitIsOfBytes(t *testing.T) {
	st := newStore(1 << 20)
	text := strings.Repeat("x", 60_000)
	for id := range int64(100) {
		batch := &thriftgen.Batch{Process: &thriftgen.Process{ServiceName: "large"}, Spans: []*thriftgen.Span{
			{TraceIdLow: id, SpanId: 1}, {TraceIdLow: id, SpanId: 2, Tags: []*thriftgen.Tag{{Key: "text", VStr: &text}}},
		}}
		buffer := thrift.NewTMemoryBuffer()
		client := agent.NewAgentClientProtocol(buffer, newProtocol(buffer), newProtocol(buffer))
		require.NoError(t, client.EmitBatch(t.Context(), batch))
		require.NoError(t, process(st, buffer.Bytes()))
	}
	require.Len(t, st.traces, 17)
	require.InDelta(t, 17*60_000, st.size, 10_000)
}

func TestAFreePortTakesThePlaceOfOneInUse(t *testing.T) {
	port := func(hostport string) int {
		_, text, err := net.SplitHostPort(hostport)
		require.NoError(t, err)
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return n
	}
	first := newServer(t)
	second, err := Start(port(strings.TrimPrefix(first.URL, "http://")), port(first.Addr))
	require.NoError(t, err)
	require.NotEqual(t, first.URL, second.URL)
	require.NotEqual(t, first.Addr, second.Addr)
	call(t, second, time.Now(), time.Millisecond)
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, second.Close())

	again, err := Start(port(strings.TrimPrefix(second.URL, "http://")), port(second.Addr))
	require.NoError(t, err)
	require.Equal(t, second.URL, again.URL, "the port is free again")
	require.Equal(t, second.Addr, again.Addr)
	require.NoError(t, again.Close())
}

func TestWhatIsNoSpanIsDroppedAndSaidOnce(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	s, err := Start(0, 0)
	require.NoError(t, err)
	conn, err := net.Dial("udp", s.Addr)
	require.NoError(t, err)
	defer conn.Close()
	for _, datagram := range []string{"", "x", "\x82\x81\x01\x04none\x00", "\x82\x81\x01\x09emitBatch\x1c\xff\xff\xff", strings.Repeat("\xff", 60_000)} {
		_, err := conn.Write([]byte(datagram))
		require.NoError(t, err)
	}
	call(t, s, time.Now(), time.Millisecond)
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, s.Close()) // nothing logs after Close
	require.Equal(t, 1, strings.Count(logged.String(), "not a batch of spans in compact Thrift"), logged.String())
}

// A few bytes can announce two billion elements. The generated Thrift code would allocate 16 GB for
// tags, or loop for minutes over empty structs in an unknown field.
func TestADatagramThatAnnouncesALongListIsAnError(t *testing.T) {
	const emitBatch = "\x82\x81\x01\x09emitBatch"
	for fields, want := range map[string]string{
		"\x1c\x1c\x29\xfc\xff\xff\xff\xff\x07": "a list of 2147483647 elements does not fit into a datagram", // a list of tags, in a process, in a batch
		"\xf9\xfc\xff\xff\xff\xff\x07":         "an unknown field",
	} {
		require.ErrorContains(t, process(newStore(1), []byte(emitBatch+fields)), want)
	}
}

func TestSpansComeWhileTheyAreShown(t *testing.T) {
	s := newServer(t)
	var done sync.WaitGroup
	const senders, each = 4, 50
	for range senders {
		done.Go(func() {
			tr, closer, err := tracer.NewTracer("client", s.Addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer closer.Close()
			for range each {
				tr.StartSpan("call").Finish()
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		n := len(found(t, s, "service", "client", "limit", "1000"))
		if n == senders*each {
			break
		}
		require.NoError(t, ctx.Err(), "%d traces", n)
	}
	done.Wait()
}
