package spanstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// defaultLimit is the maximum number of traces that a search without a limit returns, as in Jaeger.
const defaultLimit = 100

// errNotFound has Jaeger's wording.
var errNotFound = errors.New("trace not found")

// newHandler returns a handler that serves st at Jaeger's API paths, and passes all other paths
// to ui.
func newHandler(st *store, ui http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", ui)
	unknown := func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, http.StatusNotFound, nil, fmt.Errorf("the demo's memory does not implement %s %s; Jaeger may", r.Method, r.URL.Path))
	}
	mux.HandleFunc("/api/", unknown)
	mux.HandleFunc("/analytics/", unknown) // the UI's page /deep-dependencies requests a path below /analytics/
	mux.HandleFunc("GET /api/services", func(w http.ResponseWriter, r *http.Request) { ok(w, r, st.services()) })
	mux.HandleFunc("GET /api/services/{service}/operations", func(w http.ResponseWriter, r *http.Request) {
		ok(w, r, st.operations(r.PathValue("service")))
	})
	mux.HandleFunc("GET /api/operations", func(w http.ResponseWriter, r *http.Request) {
		type operation struct {
			Name     string `json:"name"`
			SpanKind string `json:"spanKind"`
		}
		operations := []operation{}
		for _, name := range st.operations(r.FormValue("service")) {
			operations = append(operations, operation{Name: name})
		}
		ok(w, r, operations)
	})
	mux.HandleFunc("GET /api/traces", func(w http.ResponseWriter, r *http.Request) {
		found, err := search(st, r)
		if err != nil {
			respond(w, r, http.StatusBadRequest, nil, err)
			return
		}
		traces := []trace{}
		for _, spans := range found {
			traces = append(traces, newTrace(spans))
		}
		ok(w, r, traces)
	})
	mux.HandleFunc("GET /api/traces/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := parseTraceID(r.PathValue("id"))
		if err != nil {
			respond(w, r, http.StatusBadRequest, nil, err)
			return
		}
		spans := st.get(id)
		if len(spans) == 0 {
			respond(w, r, http.StatusNotFound, nil, errNotFound)
			return
		}
		ok(w, r, []trace{newTrace(spans)})
	})
	mux.HandleFunc("GET /api/dependencies", func(w http.ResponseWriter, r *http.Request) { ok(w, r, st.dependencies()) })
	return mux
}

// search returns the spans of each trace whose ID is in the request. If the request has no IDs,
// search returns the spans of each trace that matches the query in the request.
func search(st *store, r *http.Request) ([][]*span, error) {
	var found [][]*span
	ids := r.URL.Query()["traceID"]
	for _, text := range ids {
		id, err := parseTraceID(text)
		if err != nil {
			return nil, err
		}
		if spans := st.get(id); len(spans) > 0 {
			found = append(found, spans)
		}
	}
	if len(ids) > 0 {
		return found, nil
	}
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return st.find(q), nil
}

// parseQuery parses the parameters of a search, in the syntax of Jaeger's API. The start and the
// end are in microseconds since 1970. A duration looks like "1.5ms". A tag is key:value, and tags
// is a JSON object of strings.
func parseQuery(params url.Values) (query, error) {
	q := query{service: params.Get("service"), operation: params.Get("operation"), tags: map[string]string{}, limit: defaultLimit}
	if q.service == "" {
		return q, errors.New("parameter 'service' is required")
	}
	for _, tag := range params["tag"] {
		key, value, ok := strings.Cut(tag, ":")
		if !ok {
			return q, fmt.Errorf("malformed 'tag' parameter, expecting key:value, received: %s", tag)
		}
		q.tags[key] = value
	}
	for _, tags := range params["tags"] {
		if err := json.Unmarshal([]byte(tags), &q.tags); err != nil {
			return q, fmt.Errorf("malformed 'tags' parameter, expecting an object of strings: %w", err)
		}
	}
	var err error
	parse := func(name string, parse func(string) error) {
		if text := params.Get(name); text != "" && err == nil {
			if err = parse(text); err != nil {
				err = fmt.Errorf("unable to parse param '%s': %w", name, err)
			}
		}
	}
	micros := func(to *time.Time) func(string) error {
		return func(text string) error {
			n, err := strconv.ParseInt(text, 10, 64)
			*to = time.UnixMicro(n)
			return err
		}
	}
	duration := func(to *time.Duration) func(string) error {
		return func(text string) (err error) {
			*to, err = time.ParseDuration(text)
			return err
		}
	}
	parse("start", micros(&q.from))
	parse("end", micros(&q.to))
	parse("minDuration", duration(&q.min))
	parse("maxDuration", duration(&q.max))
	parse("limit", func(text string) error {
		n, err := strconv.ParseUint(text, 10, 31)
		q.limit = int(n)
		return err
	})
	return q, err
}

// ok sends data in Jaeger's format.
func ok(w http.ResponseWriter, r *http.Request, data any) { respond(w, r, http.StatusOK, data, nil) }

// respond sends data, or err if err is not nil, in Jaeger's format.
func respond(w http.ResponseWriter, r *http.Request, status int, data any, err error) {
	type problem struct {
		Code int    `json:"code"`
		Msg  string `json:"msg"`
	}
	var problems []problem
	if err != nil {
		problems = []problem{{status, err.Error()}}
	}
	content := map[string]any{"data": data, "total": 0, "limit": 0, "offset": 0, "errors": problems}
	text, err := json.Marshal(content)
	if err == nil && r.FormValue("prettyPrint") == "true" {
		text, err = json.MarshalIndent(content, "", "    ")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // an error means that the browser closed the connection
}
