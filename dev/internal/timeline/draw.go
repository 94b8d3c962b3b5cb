package timeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/gomicroexample/basis/internal/oneline"
)

// DefaultWidth is a width, in characters, that fits most terminals and pages.
const DefaultWidth = 100

const (
	minBar     = 10 // minimum width of the column of bars
	minName    = 10 // minimum width of the column of operations, if their names are shortened
	maxService = 24 // maximum width of a service's name
)

// Draw returns a picture of spans. The spans must be in the order in which Parse returns them. The
// picture is at most width characters wide. If the minimum widths of its columns together exceed
// width, the picture is wider.
//
// Each span has a line with its service, its operation, its start and its duration. The start is
// relative to the start of the first span. An operation is indented below its parent. A bar shows
// the start and the duration too. A failed span has the mark "error". If there is not enough room
// for the bars, Draw shortens the names of the operations at their beginning. Lines below the
// picture list the problems of the trace, for example a missing parent.
func Draw(spans []Span, width int) string {
	if len(spans) == 0 {
		return ""
	}
	table := [][4]string{{"service", "span", "start", "took"}}
	begin, end := spans[0].Start, spans[0].Start
	for _, s := range spans {
		table = append(table, [4]string{
			runewidth.Truncate(oneline.Escape(s.Service), maxService, "…"),
			strings.Repeat("  ", s.Depth) + oneline.Escape(s.Operation),
			s.Start.Sub(spans[0].Start).String(),
			s.Duration.String(),
		})
		if s.Start.Before(begin) {
			begin = s.Start
		}
		if e := s.Start.Add(s.Duration); e.After(end) {
			end = e
		}
	}
	var widths [4]int
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], runewidth.StringWidth(cell))
		}
	}
	const gap, failed = "  ", "  error"
	// The width of all columns except the operation and the bar.
	rest := widths[0] + widths[2] + widths[3] + 4*len(gap) + len(failed)
	widths[1] = min(widths[1], max(minName, width-rest-minBar))
	bar := max(minBar, width-rest-widths[1])

	var b strings.Builder
	for i, row := range table {
		line := runewidth.FillRight(row[0], widths[0]) +
			gap + runewidth.FillRight(fit(row[1], widths[1]), widths[1]) +
			gap + runewidth.FillLeft(row[2], widths[2]) +
			gap + runewidth.FillLeft(row[3], widths[3])
		if i > 0 {
			s := spans[i-1]
			cells := func(d time.Duration) int { return int(float64(bar) * float64(d) / float64(max(1, end.Sub(begin)))) }
			from := min(cells(s.Start.Sub(begin)), bar-1)
			to := max(from+1, cells(s.Start.Add(s.Duration).Sub(begin)))
			line += gap + strings.Repeat(" ", from) + strings.Repeat("█", to-from)
			if s.Tags["error"] == "true" {
				line += strings.Repeat(" ", bar-to) + failed
			}
		}
		b.WriteString(line + "\n")
	}
	for _, note := range notes(spans) {
		b.WriteString(oneline.Escape(note) + "\n")
	}
	return b.String()
}

// fit shortens an indented name to at most width characters. It keeps the indentation and the end
// of the name.
func fit(name string, width int) string {
	if runewidth.StringWidth(name) <= width {
		return name
	}
	text := strings.TrimLeft(name, " ")
	indent := min(len(name)-len(text), width-1)
	cut := runewidth.StringWidth(text) - (width - indent - 1)
	return name[:indent] + runewidth.TruncateLeft(text, cut, "…")
}

// notes returns the lines about the problems of a trace.
func notes(spans []Span) []string {
	var all []string
	var line []Span // the spans from a root to the current span
	for _, s := range spans {
		line = append(line[:s.Depth], s)
		if s.Missing != "" {
			all = append(all, fmt.Sprintf("The parent of %s, span %s, is not in the trace: it has not ended, or was lost.", s.Operation, s.Missing))
		}
		if s.Depth == 0 {
			continue
		}
		parent := line[s.Depth-1]
		if early := parent.Start.Sub(s.Start); early > 0 {
			all = append(all, fmt.Sprintf("%s began %v before its parent span: the clocks of %s and %s differ.", s.Operation, early, parent.Service, s.Service))
		}
	}
	return all
}
