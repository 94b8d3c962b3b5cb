// Command timeline reads a trace from Jaeger's API and draws it as text:
//
//	go -C dev run ./tools/timeline [--jaeger_api URL] [ID]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"

	"golang.org/x/term"

	"github.com/gomicroexample/basis/dev/internal/timeline"
	"github.com/gomicroexample/basis/internal/oneline"
)

const clientName = "go.micro.client.basis"

// patience is how long the command waits for a trace that Jaeger does not have yet.
const patience = 5 * time.Second

// settleTime is how long a trace must stay unchanged to count as complete. This time is enough,
// because both programs send their spans at least once a second.
const settleTime = 1500 * time.Millisecond

func main() {
	os.Exit(run())
}

func run() int {
	api := flag.String("jaeger_api", cmp.Or(os.Getenv("JAEGER_API"), "http://localhost:16686"), "`URL` of the Jaeger to ask; JAEGER_API, where that is set")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "timeline: draws the trace with that ID, as client --verbose tells, or the client's last one\n\nUsage: go -C dev run ./tools/timeline [options] [ID]\n\nOptions:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	id := flag.Arg(0)
	if flag.NArg() > 1 || !regexp.MustCompile(`^[0-9a-fA-F]{0,32}$`).MatchString(id) {
		fmt.Fprintf(os.Stderr, "timeline: %q is not a trace's ID; want 1 to 32 hexadecimal digits (see \"timeline --help\")\n", flag.Args())
		return 2
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	last, err := timeline.Last(ctx, *api, clientName)
	if err != nil {
		return fail(fmt.Errorf("no Jaeger at %s: %w; start one, or name another with --jaeger_api", *api, err))
	}
	if id = cmp.Or(id, last); id == "" {
		return fail(fmt.Errorf(`the Jaeger at %s has no trace of %s; make a call first, with "go run ./client"`, *api, clientName))
	}
	spans, err := timeline.Await(ctx, *api, id, 1)
	if err != nil {
		return fail(fmt.Errorf("%w; look for the ID in what client --verbose says, and whether its --jaeger_address is this Jaeger's", err))
	}
	spans = settled(*api, id, spans)

	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil { // not a terminal
		width = timeline.DefaultWidth
	}
	if _, err := fmt.Printf("trace %s\n%s", id, timeline.Draw(spans, width)); err != nil {
		return fail(err)
	}
	return 0
}

// settled waits until the trace has not changed for settleTime, and returns all spans of the trace.
func settled(api, id string, spans []timeline.Span) []timeline.Span {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), settleTime)
		more, err := timeline.Await(ctx, api, id, len(spans)+1)
		cancel()
		if err != nil {
			return spans
		}
		spans = more
	}
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "timeline: %s\n", oneline.Escape(err.Error()))
	return 1
}
