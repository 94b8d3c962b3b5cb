//go:build linux

package cluster

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/measured"
)

// section is a part of docs/reliability.md: a title, a text, and a table.
type section struct {
	title, text string

	mu   sync.Mutex
	rows map[string]measured.Row // by script
}

var (
	hostsSection = &section{title: "## On several hosts", text: `
The scripts in [` + "`dev/e2e/cluster/testdata/faults`" + `](../dev/e2e/cluster/testdata/faults) break clusters. The hosts of a cluster are network namespaces. Each cluster has three Consul servers with their data on disk, a Consul agent on each host that runs the pair, Jaeger on its own host, and a switch between the hosts. In most scripts, clients on two hosts together make 250 calls per second. Each client has four callers, and each call has a deadline of 1 s. Up to three clusters run at a time.
`}
	swarmSection = &section{title: "## On a swarm of three machines", text: `
Each of three hosts runs a Docker engine, and the engines form a swarm. The stack is [` + "`docker-compose.yml`" + `](../docker-compose.yml) with [` + "`docker-compose.cluster.yml`" + `](../docker-compose.cluster.yml): a Consul server and a Consul agent on each host, six servers and three clients. All clients together make 250 calls per second. Each client has four callers, and each call has a deadline of 1 s.
`}
)

const columns = "\n| fault" + measured.Columns

// record adds a row to the section, and prints the row.
func (s *section) record(script string, r measured.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = map[string]measured.Row{}
	}
	s.rows[script] = r
	fmt.Println(r)
}

// replaceIn returns document with the section. The section replaces an older section with the same
// title, or follows at the end.
func (s *section) replaceIn(document string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s%s", s.title, s.text, columns)
	for _, script := range slices.Sorted(maps.Keys(s.rows)) {
		fmt.Fprintln(&b, s.rows[script])
	}
	before, rest, _ := strings.Cut(document, s.title+"\n")
	_, after, found := strings.Cut(rest, "\n## ")
	if found {
		after = "\n## " + after
	}
	return strings.TrimRight(before, "\n") + "\n\n" + b.String() + after
}

// writeReliability writes the measured sections to the file that the flag -reliability names.
func writeReliability() error {
	if *reliability == "" {
		return nil
	}
	document, err := os.ReadFile(*reliability)
	if err != nil {
		return err
	}
	text := string(document)
	for _, s := range []*section{hostsSection, swarmSection} {
		if len(s.rows) > 0 {
			text = s.replaceIn(text)
		}
	}
	return os.WriteFile(*reliability, []byte(text), 0o644)
}

func TestSectionsAreReplaced(t *testing.T) {
	first := &section{title: "## First", text: "\none\n", rows: map[string]measured.Row{"1": {Fault: "a"}}}
	second := &section{title: "## Second", text: "\ntwo\n", rows: map[string]measured.Row{"1": {Fault: "b"}}}
	const title = "# Title\n"
	document := second.replaceIn(first.replaceIn(title))
	require.Equal(t, title+"\n## First\n\none\n"+columns+"| a |  |  |  |  |\n\n## Second\n\ntwo\n"+columns+"| b |  |  |  |  |\n", document)
	require.Equal(t, document, first.replaceIn(second.replaceIn(document)))
}
