// Package measured formats the rows of the tables in docs/reliability.md.
package measured

import (
	"fmt"
	"strings"
)

// Columns is the second part of the header of a table. It names all columns except the first
// column. A caller writes the name of the first column before Columns, for example "| fault".
const Columns = ` | allowed | calls | failed | also measured |
|---|---|---|---|---|
`

// Row is a row of a table: a fault, the failures that are allowed, and the measured effects.
type Row struct {
	Fault, Allowed string
	Calls, Failed  int // both 0 if the row is not about calls
	Notes          []string
}

// Note adds the text of another measurement to the row. It formats the text as fmt.Sprintf does.
func (r *Row) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// String returns the row as a line of a Markdown table.
func (r Row) String() string {
	calls, failed := "", ""
	if r.Calls > 0 {
		calls, failed = fmt.Sprint(r.Calls), fmt.Sprint(r.Failed)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", r.Fault, r.Allowed, calls, failed, strings.Join(r.Notes, "; "))
}
