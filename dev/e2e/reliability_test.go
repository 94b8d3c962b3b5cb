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

// reliability is where what was measured is to be written, if at all.
var reliability = flag.String("reliability", "", "write what was measured to this file, as a table")

// What the tests that measure came to.
var (
	results []measured.Row // of breaking things
	inputs  []measured.Row // of bad input
	record  sync.Mutex     // held to add to them
)

// recordTo adds r to the results or the inputs, and prints it.
func recordTo(table *[]measured.Row, r measured.Row) {
	record.Lock()
	defer record.Unlock()
	*table = append(*table, r)
	fmt.Println(r)
}

const reliabilityHead = `# Reliability

What was measured when things broke, by ` + "`make reliability`" + `, which wrote this file. The scripts in [` + "`dev/e2e/testdata/faults`" + `](../dev/e2e/testdata/faults) break them, under a client that makes 250 calls a second from eight callers, with the breaker's limits raised so that it does not hide failures. All programs serve [metrics](operations.md) meanwhile. A script fails if the client's metrics and the client's log differ in the number of calls. The soak makes 500 a second from fifty.

| | |
|---|---|
| machine | %s, %d processors, %s/%s |
| Go | %s |
| Consul, Jaeger | %s, %s |
| commit | %s |
| time | %s |

| fault | allowed | calls | failed | besides |
|---|---|---|---|---|
`

const inputsHead = `
## Bad input

What callers sent that were not the pair's own client, and how much memory the server had resident at most. After each of these a normal call was answered; calls in the table are normal ones that were made meanwhile.

| what was sent | allowed | calls | failed | besides |
|---|---|---|---|---|
`

// writeReliability writes the table, if asked to.
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
