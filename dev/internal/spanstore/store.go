package spanstore

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// These types define the JSON of Jaeger's API; see
// https://github.com/jaegertracing/jaeger/blob/v1.76.0/internal/uimodel/model.go.
type (
	trace struct {
		TraceID   string             `json:"traceID"`
		Spans     []span             `json:"spans"`
		Processes map[string]*sender `json:"processes"`
		Warnings  []string           `json:"warnings"`
	}
	// span is not modified once it is in the store. newTrace sets the ProcessID of a copy.
	span struct {
		id         traceID
		size       int // size of the datagram divided by the number of its spans, in bytes
		process    *sender
		processKey string // the same for equal processes

		TraceID       string      `json:"traceID"`
		SpanID        string      `json:"spanID"`
		Flags         uint32      `json:"flags,omitempty"`
		OperationName string      `json:"operationName"`
		References    []reference `json:"references"`
		StartTime     uint64      `json:"startTime"` // microseconds since 1970
		Duration      uint64      `json:"duration"`  // microseconds
		Tags          []keyValue  `json:"tags"`
		Logs          []logLine   `json:"logs"`
		ProcessID     string      `json:"processID"`
		Warnings      []string    `json:"warnings"`
	}
	reference struct {
		RefType string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	}
	// sender is a service, with tags that say where the service runs. Jaeger calls a sender a
	// process.
	sender struct {
		ServiceName string     `json:"serviceName"`
		Tags        []keyValue `json:"tags"`
	}
	logLine struct {
		Timestamp uint64     `json:"timestamp"`
		Fields    []keyValue `json:"fields"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Type  string `json:"type"`
		Value any    `json:"value"`
	}
	link struct {
		Parent    string `json:"parent"`
		Child     string `json:"child"`
		CallCount int    `json:"callCount"`
	}
)

const childOf = "CHILD_OF"

// traceID is the ID of a trace.
type traceID struct{ high, low uint64 }

// parseTraceID parses 1 to 32 hexadecimal digits. Leading zeros may be left out.
func parseTraceID(text string) (traceID, error) {
	split := max(0, len(text)-16)
	low, err := strconv.ParseUint(text[split:], 16, 64)
	var high uint64
	if err == nil && split > 0 {
		high, err = strconv.ParseUint(text[:split], 16, 64)
	}
	if err != nil || len(text) > 32 {
		return traceID{}, fmt.Errorf("%q is not a trace ID; want 1 to 32 hexadecimal digits", text)
	}
	return traceID{high, low}, nil
}

// String returns the ID as the API shows it: 16 digits if the upper half is zero, 32 otherwise.
func (id traceID) String() string {
	if id.high == 0 {
		return fmt.Sprintf("%016x", id.low)
	}
	return fmt.Sprintf("%016x%016x", id.high, id.low)
}

// store keeps spans. Its methods are safe for concurrent use.
type store struct {
	limit int // maximum of size

	mu     sync.RWMutex
	traces map[traceID][]*span
	oldest []traceID // the keys of the map traces, in the order in which the first spans of the traces arrived
	size   int       // sum of the spans' sizes, in bytes
}

// newStore returns a store for at most limit bytes of spans.
func newStore(limit int) *store { return &store{limit: limit, traces: map[traceID][]*span{}} }

// add adds a span. If the spans then exceed the limit, add evicts the oldest traces.
func (st *store) add(s *span) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if _, ok := st.traces[s.id]; !ok {
		st.oldest = append(st.oldest, s.id)
	}
	st.traces[s.id] = append(st.traces[s.id], s)
	for st.size += s.size; st.size > st.limit; st.oldest = st.oldest[1:] {
		for _, evicted := range st.traces[st.oldest[0]] {
			st.size -= evicted.size
		}
		delete(st.traces, st.oldest[0])
	}
}

// all returns the spans of each trace, the oldest trace first. Callers must not modify the spans.
func (st *store) all() [][]*span {
	st.mu.RLock()
	defer st.mu.RUnlock()
	all := make([][]*span, 0, len(st.oldest))
	for _, id := range st.oldest {
		all = append(all, st.traces[id])
	}
	return all
}

// get returns the spans of a trace, or none if the trace is unknown. Callers must not modify the
// spans.
func (st *store) get(id traceID) []*span {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.traces[id]
}

// services returns the names of all services, sorted.
func (st *store) services() []string {
	return st.names(func(s *span) (string, bool) { return s.process.ServiceName, true })
}

// operations returns the names of a service's operations, sorted.
func (st *store) operations(service string) []string {
	return st.names(func(s *span) (string, bool) { return s.OperationName, s.process.ServiceName == service })
}

// names calls nameOf for each span. It returns the names for which nameOf returns true, sorted and
// without duplicates.
func (st *store) names(nameOf func(*span) (string, bool)) []string {
	seen := map[string]bool{}
	for _, spans := range st.all() {
		for _, s := range spans {
			if name, ok := nameOf(s); ok {
				seen[name] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// dependencies returns the number of calls for each pair of a calling service and a called service.
func (st *store) dependencies() []link {
	counts := map[link]int{}
	for _, spans := range st.all() {
		services := map[string]string{} // by span ID
		for _, s := range spans {
			services[s.SpanID] = s.process.ServiceName
		}
		for _, s := range spans {
			child := s.process.ServiceName
			if len(s.References) == 0 || s.References[0].RefType != childOf {
				continue
			}
			if parent, ok := services[s.References[0].SpanID]; ok && parent != child {
				counts[link{Parent: parent, Child: child}]++
			}
		}
	}
	links := make([]link, 0, len(counts))
	for l, n := range counts {
		l.CallCount = n
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b link) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Child, b.Child))
	})
	return links
}

// query is a search for traces. A trace matches if one of its spans meets all conditions.
type query struct {
	service   string
	operation string            // empty: any
	tags      map[string]string // of the span, its process or its logs
	from, to  time.Time         // limits of the start; zero: no limit
	min, max  time.Duration     // limits of the duration; zero: no limit
	limit     int               // maximum number of traces
}

// find returns the spans of each trace that matches q, the newest trace first.
func (st *store) find(q query) [][]*span {
	found := slices.DeleteFunc(st.all(), func(spans []*span) bool { return !slices.ContainsFunc(spans, q.matches) })
	slices.SortStableFunc(found, func(a, b []*span) int { return cmp.Compare(start(b), start(a)) })
	return found[:min(len(found), q.limit)]
}

// start returns the start of a trace's earliest span, in microseconds since 1970.
func start(spans []*span) uint64 {
	first := spans[0].StartTime
	for _, s := range spans {
		first = min(first, s.StartTime)
	}
	return first
}

func (q query) matches(s *span) bool {
	began, took := time.UnixMicro(int64(s.StartTime)), time.Duration(s.Duration)*time.Microsecond
	switch {
	case s.process.ServiceName != q.service,
		q.operation != "" && s.OperationName != q.operation,
		!q.from.IsZero() && began.Before(q.from),
		!q.to.IsZero() && began.After(q.to),
		q.min > 0 && took < q.min,
		q.max > 0 && took > q.max:
		return false
	}
	for key, value := range q.tags {
		if !s.has(key, value) {
			return false
		}
	}
	return true
}

// has reports whether the span, its process or its logs have a tag with this key and value.
func (s *span) has(key, value string) bool {
	is := func(kv keyValue) bool { return kv.Key == key && fmt.Sprint(kv.Value) == value }
	return slices.ContainsFunc(s.Tags, is) || slices.ContainsFunc(s.process.Tags, is) ||
		slices.ContainsFunc(s.Logs, func(l logLine) bool { return slices.ContainsFunc(l.Fields, is) })
}

// newTrace returns the trace that consists of spans.
func newTrace(spans []*span) trace {
	t := trace{TraceID: spans[0].TraceID, Processes: map[string]*sender{}}
	ids := map[string]string{} // IDs of processes, by processKey
	for _, s := range spans {
		id, ok := ids[s.processKey]
		if !ok {
			id = fmt.Sprintf("p%d", len(ids)+1)
			ids[s.processKey] = id
			t.Processes[id] = s.process
		}
		shown := *s
		shown.ProcessID = id
		t.Spans = append(t.Spans, shown)
	}
	return t
}
