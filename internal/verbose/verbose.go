// Package verbose is what the client tells of its calls with --verbose.
package verbose

import (
	"fmt"
	"strings"
	"time"
)

// Format is the line of a call, which report.Report writes.
const Format = "call=%d outcome=%q latency=%s node=%s trace=%s start=%s waited=%s"

// Call is what the client tells of one; see calls.Result. Its outcome is "ok" or
// why it failed. Node and Trace are "none" where there is none.
type Call struct {
	Number          int
	Outcome         string
	Latency, Waited time.Duration
	Node, Trace     string
	Start           time.Time
}

// Parse returns the calls that stderr tells of, in the order in which they ended,
// and passes over other lines. A call's line that is not as report.Report writes
// it is an error.
func Parse(stderr string) ([]Call, error) {
	var all []Call
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "call=") {
			continue
		}
		var c Call
		var latency, start, waited string
		_, err := fmt.Sscanf(line, Format,
			&c.Number, &c.Outcome, &latency, &c.Node, &c.Trace, &start, &waited)
		if err == nil {
			c.Latency, err = time.ParseDuration(latency)
		}
		if err == nil {
			c.Start, err = time.Parse(time.RFC3339, start)
		}
		if err == nil {
			c.Waited, err = time.ParseDuration(waited)
		}
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		all = append(all, c)
	}
	return all, nil
}
