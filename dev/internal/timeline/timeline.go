// Package timeline reads traces from Jaeger's API, and draws them as text.
package timeline

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/gomicroexample/basis/dev/internal/backend"
)

// pollInterval is the time between two requests of Await.
const pollInterval = 50 * time.Millisecond

// Span is a span of a trace from Jaeger's API.
type Span struct {
	Service   string
	Operation string
	Parent    string // operation of the parent span; empty for a root
	Missing   string // ID of the parent span, if the parent span is not in the trace; otherwise empty
	Depth     int    // number of ancestors; 0 for a root
	Start     time.Time
	Duration  time.Duration
	Tags      map[string]string // the values are converted to text
}

// Await waits until Jaeger has at least n spans of the trace with this ID. It returns the spans in
// the order of Parse. api is Jaeger's URL, for example http://127.0.0.1:16686. If ctx ends first,
// Await returns an error that contains the result of the last request.
func Await(ctx context.Context, api, id string, n int) ([]Span, error) {
	var spans []Span
	err := backend.Until(ctx, pollInterval, func() error {
		body, err := backend.Get(ctx, api+"/api/traces/"+url.PathEscape(id))
		if err != nil {
			return err
		}
		if spans, err = Parse(body); err == nil && len(spans) < n {
			err = fmt.Errorf("it has %d spans", len(spans))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no trace %s at %s with %d or more spans in time: %w", id, api, n, err)
	}
	return spans, nil
}

// Last returns the ID of the newest trace with a span of service, or "" if Jaeger has no such
// trace. api is Jaeger's URL, as for Await. Last compares up to 20 traces.
func Last(ctx context.Context, api, service string) (string, error) {
	body, err := backend.Get(ctx, api+"/api/traces?limit=20&service="+url.QueryEscape(service))
	if err != nil {
		return "", err
	}
	traces, err := decode(body)
	id, newest := "", int64(0)
	for _, t := range traces {
		for _, s := range t.Spans {
			if s.StartTime > newest {
				id, newest = t.TraceID, s.StartTime
			}
		}
	}
	return id, err
}

// jaegerTrace and jaegerSpan have the fields of Jaeger's JSON that this package uses; see
// https://github.com/jaegertracing/jaeger/blob/v1.76.0/internal/uimodel/model.go.
type jaegerTrace struct {
	TraceID   string
	Processes map[string]struct{ ServiceName string }
	Spans     []jaegerSpan
}

type jaegerSpan struct {
	SpanID, OperationName, ProcessID string
	StartTime, Duration              int64 // microseconds
	References                       []struct{ SpanID string }
	Tags                             []struct {
		Key   string
		Value any
	}
}

func (s jaegerSpan) parent() string {
	if len(s.References) == 0 {
		return ""
	}
	return s.References[0].SpanID
}

func decode(body []byte) ([]jaegerTrace, error) {
	var answer struct{ Data []jaegerTrace }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer of Jaeger: %w", err)
	}
	return answer.Data, nil
}

// Parse returns the spans in a response of Jaeger's /api/traces/ID. The children of a span follow
// the span, in the order of their starts. Spans whose parent is not in the trace come last. Parse
// returns an error if the response does not have exactly one trace.
func Parse(body []byte) ([]Span, error) {
	traces, err := decode(body)
	if err != nil {
		return nil, err
	}
	if len(traces) != 1 {
		return nil, fmt.Errorf("answer of Jaeger: %d traces, not 1", len(traces))
	}
	all := traces[0].Spans
	slices.SortStableFunc(all, func(a, b jaegerSpan) int { return cmp.Compare(a.StartTime, b.StartTime) })
	operations := map[string]string{}     // by span ID
	children := map[string][]jaegerSpan{} // by the ID of the parent span
	for _, s := range all {
		operations[s.SpanID] = s.OperationName
		children[s.parent()] = append(children[s.parent()], s)
	}

	var spans []Span
	var add func(parent, missing string, depth int)
	add = func(parent, missing string, depth int) {
		for _, s := range children[parent] {
			tags := map[string]string{}
			for _, t := range s.Tags {
				tags[t.Key] = fmt.Sprint(t.Value)
			}
			spans = append(spans, Span{
				Service:   traces[0].Processes[s.ProcessID].ServiceName,
				Operation: s.OperationName,
				Parent:    operations[parent],
				Missing:   missing,
				Depth:     depth,
				Start:     time.UnixMicro(s.StartTime),
				Duration:  time.Duration(s.Duration) * time.Microsecond,
				Tags:      tags,
			})
			add(s.SpanID, "", depth+1)
		}
		delete(children, parent) // add each span only once
	}
	add("", "", 0)
	for _, s := range all {
		if _, ok := operations[s.parent()]; !ok {
			add(s.parent(), s.parent(), 0)
		}
	}
	return spans, nil
}
