package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/markdown"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// The command "shows url regexp" waits until the page at url has a match of regexp. With ! it
// waits until the page has no match.
func shows(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, len(args) == 2, "[!] shows url regexp")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, func() error {
		ctx, cancel := patient()
		defer cancel()
		body, err := backend.Get(ctx, args[0])
		switch match := re.Find(body); {
		case err != nil:
			return err
		case neg && match != nil:
			return fmt.Errorf("%s still has %q", args[0], match)
		case !neg && match == nil:
			return fmt.Errorf("%s has nothing that matches %s:\n%s", args[0], args[1], body)
		}
		return nil
	})
}

// The command "documented address program" compares the metrics at address with the tables for
// program in docs/operations.md: names, types and labels. It ignores the metrics of the Go runtime,
// of the process, and of the HTTP handler promhttp.
func documented(ts *testscript.TestScript, neg bool, args []string) {
	programs := []string{"client", "srv"} // in the order of the tables; a third table is for both programs
	want(ts, !neg && len(args) == 2 && slices.Contains(programs, args[1]), "documented address srv|client")
	root, err := project.Root()
	ts.Check(err)
	document, err := markdown.Read(filepath.Join(root, "docs", "operations.md"))
	ts.Check(err)
	tables := slices.DeleteFunc(document.Tables, func(t markdown.Table) bool { return len(t[0]) != 5 })
	if len(tables) != len(programs)+1 {
		ts.Fatalf("%d tables of metrics", len(tables))
	}
	documented := map[string]bool{}
	for _, row := range slices.Concat(tables[slices.Index(programs, args[1])], tables[len(programs)]) {
		documented[describe(row[0], row[1], strings.Split(row[2], ", "))] = true
	}

	ctx, cancel := patient()
	defer cancel()
	body, err := backend.Get(ctx, "http://"+args[0]+"/metrics")
	ts.Check(err)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	ts.Check(err)
	served := map[string]bool{}
	for name, family := range families {
		if prefix, _, _ := strings.Cut(name, "_"); !slices.Contains([]string{"go", "process", "promhttp"}, prefix) {
			served[describe(name, strings.ToLower(family.GetType().String()), labels(family))] = true
		}
	}
	var problems []error
	for _, what := range slices.Sorted(maps.Keys(served)) {
		if !documented[what] {
			problems = append(problems, fmt.Errorf("not in docs/operations.md: %s", what))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(documented)) {
		if !served[what] {
			problems = append(problems, fmt.Errorf("only in docs/operations.md: %s", what))
		}
	}
	ts.Check(errors.Join(problems...))
}

// describe returns a text with the name, type and labels of a metric. The command "documented"
// compares these texts.
func describe(name, kind string, labels []string) string {
	slices.Sort(labels)
	return fmt.Sprintf("%s, a %s by %s", name, kind, strings.Join(labels, ", "))
}

// labels returns the names of a family's labels. If there are no labels, it returns "none", the
// word in the tables.
func labels(family *dto.MetricFamily) []string {
	var names []string
	for _, l := range family.GetMetric()[0].GetLabel() {
		names = append(names, l.GetName())
	}
	if names == nil {
		return []string{"none"}
	}
	return names
}
