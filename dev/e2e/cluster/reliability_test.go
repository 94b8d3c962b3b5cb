//go:build linux

package cluster

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/gomicroexample/basis/dev/internal/measured"
)

// rows has what was measured, by script.
var rows struct {
	sync.Mutex
	of map[string]measured.Row
}

// recordRow adds a row, and prints it.
func recordRow(script string, r measured.Row) {
	rows.Lock()
	defer rows.Unlock()
	if rows.of == nil {
		rows.of = map[string]measured.Row{}
	}
	rows.of[script] = r
	fmt.Println(r)
}

const head = `
## On several hosts

The scripts in [` + "`dev/e2e/cluster/testdata/faults`" + `](../dev/e2e/cluster/testdata/faults) break clusters of network namespaces: three Consul servers with their data on disk, an agent on each host that runs the pair, Jaeger on a host of its own, and a switch between them. Clients on two hosts make 250 calls a second together, from four callers each, with a deadline of 1 s. Three clusters run at a time.

| fault | allowed | calls | failed | besides |
|---|---|---|---|---|
`

// writeReliability puts the table at the end of the file, if asked to, in the place of an earlier one.
func writeReliability() error {
	if *reliability == "" {
		return nil
	}
	document, err := os.ReadFile(*reliability)
	if err != nil {
		return err
	}
	title, _, _ := strings.Cut(strings.TrimSpace(head), "\n")
	before, _, _ := strings.Cut(string(document), "\n"+title)
	var b strings.Builder
	b.WriteString(before + head)
	for _, script := range slices.Sorted(maps.Keys(rows.of)) {
		fmt.Fprintln(&b, rows.of[script])
	}
	return os.WriteFile(*reliability, []byte(b.String()), 0o644)
}
