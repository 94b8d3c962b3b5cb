// Package measured has the rows of the tables in docs/reliability.md.
package measured

import (
	"fmt"
	"strings"
)

// Row is a line of a table: what was broken, and what came of it.
type Row struct {
	Fault, Allowed string
	Calls, Failed  int // both 0 in a row that is not about calls
	Notes          []string
}

// Note adds what else was measured.
func (r *Row) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// String returns the row in Markdown.
func (r Row) String() string {
	calls, failed := "", ""
	if r.Calls > 0 {
		calls, failed = fmt.Sprint(r.Calls), fmt.Sprint(r.Failed)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.Fault, r.Allowed, calls, failed, strings.Join(r.Notes, "; "))
}
