// Package gctuning sets how often the garbage collector runs.
package gctuning

import (
	"os"
	"runtime/debug"
)

// Percent is the value of GOGC that Apply sets. The live heap of either program is a few
// MB. At this value the heap grows to about 40 MB before a collection.
const Percent = 800

// Apply sets the garbage collector's percentage to Percent, in place of Go's 100. It
// leaves the setting alone if GOGC or GOMEMLIMIT is set: the user has decided.
//
// Do not copy this to a program whose live heap is large: at 800 percent, a live heap of
// 1 GB grows to 9 GB.
func Apply() {
	for _, variable := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(variable) != "" {
			return
		}
	}
	debug.SetGCPercent(Percent)
}
