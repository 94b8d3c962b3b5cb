package load

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// lineFormat is the text format of a Line.
const lineFormat = "call=%d outcome=%q latency=%s node=%s trace=%s start=%s waited=%s"

// timeFormat is the text format of a Line's Start.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Unsampled is the Trace of a call that the tracer did not sample. Jaeger has no trace of such a
// call.
const Unsampled = "unsampled"

// Line is the line that --verbose prints for one call. Its fields have the same meaning as the
// fields of Result. Outcome is "ok", or the error of a failed call. An empty Node or Trace is
// printed as "none".
type Line struct {
	Number          int
	Outcome         string
	Latency, Waited time.Duration
	Node, Trace     string
	Start           time.Time
}

// String returns the text of the line, without a newline.
func (l Line) String() string {
	return fmt.Sprintf(lineFormat,
		l.Number, l.Outcome, l.Latency.Round(time.Microsecond), cmp.Or(l.Node, "none"), cmp.Or(l.Trace, "none"),
		l.Start.UTC().Format(timeFormat), l.Waited.Round(time.Microsecond))
}

// ParseLines returns the Lines in the text that the client wrote to stderr. The Lines are in the
// order of this text. ParseLines skips all lines that do not begin with "call=". It returns an
// error if a line begins with "call=" but does not have the format of a Line.
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
