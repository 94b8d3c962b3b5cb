package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/measured"
)

// reliability is the path of the file that writeReliability writes. If it is empty,
// writeReliability does nothing.
var reliability = flag.String("reliability", "", "write the measured numbers to this file, as a table")

// The measurements of the tests.
var (
	results []measured.Row // of faults and of the soak
	inputs  []measured.Row // of bad input
	record  sync.Mutex     // guards results and inputs
)

// recordTo adds r to table, which is results or inputs, and prints r.
func recordTo(table *[]measured.Row, r measured.Row) {
	record.Lock()
	defer record.Unlock()
	*table = append(*table, r)
	fmt.Println(r)
}

const reliabilityHead = `# Reliability

` + "`make reliability`" + ` measures how many calls fail when something breaks, and writes this file. The scripts in [` + "`dev/e2e/testdata/faults`" + `](../dev/e2e/testdata/faults) break servers, Consul or Jaeger. Meanwhile, a client makes 250 calls per second from eight callers. The breaker's limits are so high that the circuit stays closed. So the breaker hides no failures. Some scripts change these settings. The programs of the pair serve [metrics](operations.md#metrics). When a script checks the number of failed calls, it also compares the client's metrics with the client's log.

The soak makes 500 calls per second from fifty callers. In its row, *first* means the second tenth of the soak's time, and *last* means the last tenth. In the column *allowed*, a number at the start of a cell is the maximum number of failed calls.

| | |
|---|---|
| machine | %s, %d processors, %s/%s |
| Go | %s |
| Consul, Jaeger | %s, %s |
| commit | %s |
| time | %s |

| fault` + measured.Columns

const inputsHead = `
## Bad input

Each script sends wrong or hostile input to a server. After the input, a normal call must succeed. A script fails if the server's resident memory has ever been larger than 100 MB. The last number of each row is the maximum of this memory. The columns *calls* and *failed* count the normal calls during the input.

| what was sent` + measured.Columns

// writeReliability writes the tables of all measurements to the file that the flag -reliability
// names.
func writeReliability() error {
	if *reliability == "" {
		return nil
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return fmt.Errorf("asking git for the commit: %w", err)
	}
	cpus, err := cpu.Info()
	if err != nil || len(cpus) == 0 {
		return fmt.Errorf("asking for the processor: %v", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, reliabilityHead, cpus[0].ModelName, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		binaries.Consul.Version, binaries.Jaeger.Version, strings.TrimSpace(string(commit)), time.Now().UTC().Format("2006-01-02 15:04 MST"))
	for _, r := range results {
		fmt.Fprintln(&b, r)
	}
	b.WriteString(inputsHead)
	slices.SortFunc(inputs, func(a, b measured.Row) int { return strings.Compare(a.Fault, b.Fault) })
	for _, r := range inputs {
		fmt.Fprintln(&b, r)
	}
	return os.WriteFile(*reliability, []byte(b.String()), 0o644)
}
