// Package gctuning sets how often the garbage collector runs.
package gctuning

import (
	"os"
	"runtime/debug"
)

// Percent is the value of GOGC that Apply sets. The live heap of either program is a few MB. So
// with Go's default, 100, the collector runs several times a second. At 400, the pair makes 16%
// more calls per second under load, and each program holds 10 MB more. More than 400 brings
// nothing. docs/benchmarks.md has the figures.
const Percent = 400

// Apply sets the garbage collector's percentage to Percent, in place of Go's 100. It
// leaves the setting alone if GOGC or GOMEMLIMIT is set: the user has decided.
//
// Do not copy this to a program whose live heap is large: at 400 percent, a live heap of
// 1 GB grows to 5 GB between collections.
func Apply() {
	for _, variable := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(variable) != "" {
			return
		}
	}
	debug.SetGCPercent(Percent)
}
