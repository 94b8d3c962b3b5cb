package load

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// lineFormat is the format of a Line.
const lineFormat = "call=%d outcome=%q latency=%s node=%s trace=%s start=%s waited=%s"

// timeFormat is the format of a Line's start.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Unsampled is the Trace of a call whose trace the tracer did not sample. Jaeger does not have
// such a trace.
const Unsampled = "unsampled"

// Line is what --verbose prints for one call; see Result. Outcome is "ok" or why the call
// failed. Node and Trace are "none" where there is none.
type Line struct {
	Number          int
	Outcome         string
	Latency, Waited time.Duration
	Node, Trace     string
	Start           time.Time
}

// String returns the line, without its end.
func (l Line) String() string {
	return fmt.Sprintf(lineFormat,
		l.Number, l.Outcome, l.Latency.Round(time.Microsecond), cmp.Or(l.Node, "none"), cmp.Or(l.Trace, "none"),
		l.Start.UTC().Format(timeFormat), l.Waited.Round(time.Microsecond))
}

// ParseLines returns the lines of calls in the client's stderr, in their order, and skips
// all other lines. It returns an error for a line that begins as one of a call and is
// none.
func ParseLines(stderr string) ([]Line, error) {
	var all []Line
	for text := range strings.Lines(stderr) {
		if !strings.HasPrefix(text, "call=") {
			continue
		}
		var l Line
		var latency, start, waited string
		_, err := fmt.Sscanf(text, lineFormat,
			&l.Number, &l.Outcome, &latency, &l.Node, &l.Trace, &start, &waited)
		if err == nil {
			l.Latency, err = time.ParseDuration(latency)
		}
		if err == nil {
			l.Start, err = time.Parse(time.RFC3339, start)
		}
		if err == nil {
			l.Waited, err = time.ParseDuration(waited)
		}
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", text, err)
		}
		all = append(all, l)
	}
	return all, nil
}
