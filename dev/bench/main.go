// Command bench compares the pair (srv and client) with other implementations of the same service.
// "make bench" runs it.
//
// The command builds all programs, runs them with a real Consul, and prints a report in Markdown.
// If a call fails, or if too many spans are missing, the command exits with status 1 and prints no
// report. The command needs Linux and Consul. "make tools" builds Consul.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/internal/project"
)

// plan has the number and the length of the measurements.
type plan struct {
	Starts   int           // how often all programs are started
	Rounds   int           // rounds after each start; a round measures each point once
	Warmup   time.Duration // length of the load before the measurement of a point
	Measure  time.Duration // length of the measurement of a point
	Profile  time.Duration // length of one CPU profile, in whole seconds
	Profiles int           // number of CPU profiles of each program
	OneShot  int           // after each start, runs of each client that makes one call
	Builds   int           // timed builds of srv and client
}

// On two processors, the plan full takes about 15 minutes, and the plan quick takes about 3
// minutes.
//
// The speed of a machine can change within seconds. Many short rounds average out such changes
// better than a few long rounds. Also, each time a program starts, it can be some percent faster or
// slower. Several starts average out this difference.
var (
	full  = plan{Starts: 6, Rounds: 4, Warmup: 100 * time.Millisecond, Measure: 300 * time.Millisecond, Profile: 4 * time.Second, Profiles: 2, OneShot: 5, Builds: 5}
	quick = plan{Starts: 2, Rounds: 2, Warmup: 80 * time.Millisecond, Measure: 200 * time.Millisecond, Profile: 2 * time.Second, Profiles: 1, OneShot: 3, Builds: 2}
)

// changes is the part of the report about earlier versions of the pair. It states the effect of
// each change. The effects were measured when the changes were made.
//
//go:embed changes.md
var changes string

func main() {
	os.Exit(run())
}

func run() int {
	isQuick := flag.Bool("quick", false, "about 3 minutes instead of 15")
	only := flag.String("only", "", "measure the entries whose names match the `regexp` alone, and print a row for each")
	out := flag.String("o", "", "`file` to write the document to, instead of stdout")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q (see \"bench -help\")\n", flag.Arg(0))
		return 2
	}
	p := full
	if *isQuick {
		p = quick
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	chosen, err := regexp.Compile("^(" + *only + ")$")
	if err != nil {
		return fail(fmt.Errorf("-only: %w", err))
	}
	var doc []byte
	if *only == "" {
		doc, err = bench(ctx, p)
	} else {
		doc, err = benchOnly(ctx, p, chosen)
	}
	if err != nil {
		return fail(err)
	}
	if *out == "" {
		_, err = os.Stdout.Write(doc)
	} else {
		err = os.WriteFile(*out, doc, 0o644)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

// bench measures everything and returns the document.
func bench(ctx context.Context, p plan) ([]byte, error) {
	return document(ctx, p, groups, "report")
}

// benchOnly measures the entries whose names match a regular expression, and returns a table of
// these entries.
func benchOnly(ctx context.Context, p plan, names *regexp.Regexp) ([]byte, error) {
	p.OneShot, p.Builds, p.Profiles = 0, 0, 0
	var chosen [][]entry
	for _, group := range groups {
		var entries []entry
		for _, e := range group {
			if names.MatchString(e.name) {
				entries = append(entries, e)
			}
		}
		if len(entries) > 0 {
			chosen = append(chosen, entries)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-only: no entry's name matches %v", names)
	}
	return document(ctx, p, chosen, "only")
}

// document measures one group of entries after another, and returns the output of the named
// template.
func document(ctx context.Context, p plan, groups [][]entry, template string) ([]byte, error) {
	root, err := project.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "basis-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	progress("building")
	if err := build(ctx, root, dir); err != nil {
		return nil, err
	}
	r := report{Plan: p, Changes: changes, Results: results{}, Ends: map[string]ended{}, OneShots: map[string][]float64{}, Usages: map[string][]usage{}, measured: slices.Concat(groups...)}
	if r.About, err = about(ctx, dir); err != nil {
		return nil, err
	}
	for i := range p.Starts {
		for _, entries := range groups {
			progress("start %d of %d, %d entries", i+1, p.Starts, len(entries))
			if err := r.start(ctx, dir, entries); err != nil {
				return nil, err
			}
		}
	}
	if p.Profiles > 0 {
		progress("profiles")
		if err := r.profile(ctx, dir); err != nil {
			return nil, err
		}
	}
	if p.Builds > 0 {
		progress("building %d times", p.Builds)
		if r.Build, err = timeBuilds(ctx, root, dir, p.Builds); err != nil {
			return nil, err
		}
	}
	var doc bytes.Buffer
	err = page.ExecuteTemplate(&doc, template, r)
	return doc.Bytes(), err
}

// start starts entries, adds their measurements to the report, and stops the entries.
func (r *report) start(ctx context.Context, dir string, entries []entry) error {
	b, err := start(ctx, dir, entries)
	if err != nil {
		return err
	}
	defer b.stop()
	if err := b.measure(ctx, r.Plan, r.Results); err != nil {
		return err
	}
	// Only the group of the peers has runs with one call. Its first entry is peers[0].
	if r.Plan.OneShot > 0 && entries[0].name == peers[0].name {
		if err := b.oneShots(ctx, r.Plan.OneShot, r.OneShots); err != nil {
			return err
		}
	}
	return b.end(r.Ends)
}

// profile starts the peers, adds the CPU time from their profiles to the report, and stops the
// peers.
func (r *report) profile(ctx context.Context, dir string) error {
	entries, err := profiled()
	if err != nil {
		return err
	}
	b, err := start(ctx, dir, entries)
	if err != nil {
		return err
	}
	defer b.stop()
	return b.profile(ctx, r.Plan, r.Usages)
}

func progress(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, a...))
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	return 1
}
