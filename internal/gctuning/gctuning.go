// Package gctuning makes the garbage collector run less often than Go's default.
package gctuning

import (
	"os"
	"runtime/debug"
)

// Percent is the value of GOGC that Apply sets, in percent. The live heap of each program is a
// few MB. So with Go's default of 100, the collector runs several times a second. With 400, the
// pair makes 16% more calls per second under load, and each program uses 10 MB more memory.
// Values above 400 gain nothing. docs/benchmarks.md has the figures.
const Percent = 400

// Apply sets the garbage collector's target percentage to Percent; Go's default is 100. If the
// user has set GOGC or GOMEMLIMIT, Apply does nothing.
//
// Do not use Apply in a program with a large live heap: with 400 percent and 1 GB of live objects,
// the heap grows to 5 GB before each collection.
func Apply() {
	for _, variable := range []string{"GOGC", "GOMEMLIMIT"} {
		if os.Getenv(variable) != "" {
			return
		}
	}
	debug.SetGCPercent(Percent)
}
