package backend

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

//go:embed jaeger.yaml
var jaegerConfig []byte

// Jaeger is a Jaeger on this machine that keeps traces in memory.
type Jaeger struct {
	*Process
	Addr string // host:port that takes spans over UDP
	URL  string // of its UI and API
}

// StartJaeger runs the Jaeger at path with its log in dir, and waits until it
// can be asked. Its UI is on uiPort, and it takes spans on spansPort, if those
// are free, and on others otherwise.
func StartJaeger(ctx context.Context, path, dir string, uiPort, spansPort int) (*Jaeger, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("ports for Jaeger: %w", err)
	}
	if uiPort == 0 || !isFree(uiPort) {
		uiPort = ports[0]
	}
	if spansPort == 0 || !isFreeUDP(spansPort) {
		spansPort = ports[1]
	}
	config := filepath.Join(dir, "jaeger.yaml")
	if err := os.WriteFile(config, jaegerConfig, 0o644); err != nil {
		return nil, err
	}
	j := &Jaeger{Addr: local(spansPort), URL: "http://" + local(uiPort)}
	j.Process, err = Start("jaeger", filepath.Join(dir, "jaeger.log"), Environ(
		"BASIS_JAEGER_SPANS="+j.Addr,
		"BASIS_JAEGER_QUERY="+local(uiPort),
		"BASIS_JAEGER_QUERY_GRPC="+local(ports[2]),
	), path, "--config", "file:"+config)
	if err != nil {
		return nil, err
	}
	if err := j.waitHTTP(ctx, j.URL+"/api/services"); err != nil {
		_ = j.Stop(syscall.SIGKILL)
		return nil, err
	}
	return j, nil
}

// HasUI reports whether this Jaeger shows more than a placeholder page.
func (j *Jaeger) HasUI(ctx context.Context) bool {
	body, err := Get(ctx, j.URL+"/")
	return err == nil && !bytes.Contains(body, []byte("not the Jaeger UI"))
}

// Span is one of a trace, as Jaeger's API tells it.
type Span struct {
	Service   string
	Operation string
	Parent    string            // operation of the parent; empty for the root
	Tags      map[string]string // values as text
}

// Trace waits until n spans of the trace with that ID are at Jaeger and returns
// them, parents before children.
func (j *Jaeger) Trace(ctx context.Context, id string, n int) ([]Span, error) {
	var spans []Span
	err := j.until(ctx, fmt.Sprintf("trace %s with %d spans", id, n), func() bool {
		body, err := Get(ctx, j.URL+"/api/traces/"+id)
		if err != nil {
			return false
		}
		spans, err = ParseTrace(body)
		return err == nil && len(spans) >= n
	})
	return spans, err
}

// ParseTrace returns the spans in an answer of Jaeger's /api/traces/ID, parents
// before children.
func ParseTrace(body []byte) ([]Span, error) {
	var answer struct {
		Data []struct {
			Processes map[string]struct{ ServiceName string }
			Spans     []struct {
				SpanID, OperationName, ProcessID string
				References                       []struct{ SpanID string }
				Tags                             []struct {
					Key   string
					Value any
				}
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer of Jaeger: %w", err)
	}
	if len(answer.Data) != 1 {
		return nil, fmt.Errorf("answer of Jaeger: %d traces, not 1", len(answer.Data))
	}
	trace := answer.Data[0]
	// Level by level, from the root down.
	var spans []Span
	parents := map[string]string{"": ""} // the level above: IDs and operations
	for len(parents) > 0 {
		level := map[string]string{}
		for _, s := range trace.Spans {
			parent := ""
			if len(s.References) > 0 {
				parent = s.References[0].SpanID
			}
			operation, ok := parents[parent]
			if !ok {
				continue
			}
			tags := map[string]string{}
			for _, t := range s.Tags {
				tags[t.Key] = fmt.Sprint(t.Value)
			}
			spans = append(spans, Span{
				Service:   trace.Processes[s.ProcessID].ServiceName,
				Operation: s.OperationName,
				Parent:    operation,
				Tags:      tags,
			})
			level[s.SpanID] = s.OperationName
		}
		parents = level
	}
	return spans, nil
}
