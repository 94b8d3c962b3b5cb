// Command pictures takes the pictures in docs/pictures. "make pictures" runs it. The command takes
// screenshots of the pages of Consul and Jaeger while the pair uses both. It also draws a terminal
// with the output of the demo. The command needs Chromium, and the Consul and Jaeger of "make
// tools".
//
// With -o, the command writes the pictures to another directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/browser"
	"github.com/gomicroexample/basis/dev/internal/project"
)

const (
	// maxSize is the size limit of a picture, in bytes. A browser loads all pictures of a document
	// at once, so each picture must be small.
	maxSize = 150_000
	// patience is the time limit for all pictures together.
	patience = 5 * time.Minute
	// width and height are the size of the browser's page, in pixels.
	width, height = 1200, 1200
)

func main() {
	os.Exit(run())
}

func run() int {
	to := flag.String("o", "", "`directory` to write to; without it, docs/pictures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root, err := project.Root()
	if err != nil {
		return fail(err)
	}
	if *to == "" {
		*to = filepath.Join(root, "docs", "pictures")
	}
	if err := os.MkdirAll(*to, 0o755); err != nil {
		return fail(err)
	}
	if err := take(ctx, root, *to); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "pictures: %v\n", err)
	return 1
}

// take writes all pictures into the directory target. root is the project's top directory.
func take(ctx context.Context, root, target string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "basis-pictures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := takePages(ctx, dir, target); err != nil {
		return err
	}
	return takeDemo(ctx, root, dir, target)
}

// takePages takes the pictures of the pages of Jaeger and Consul, and writes them into the
// directory target. dir is the directory of the programs and the logs.
func takePages(ctx context.Context, dir, target string) error {
	b, err := browser.Start(width, height)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	s, err := browser.NewStage(ctx, dir)
	if err != nil {
		return fmt.Errorf(`%w; see "make tools"`, err)
	}
	defer s.Close()
	story, err := s.Tell(ctx)
	if err != nil {
		return err
	}

	search := func() error {
		_, err := b.Search(ctx, s.Jaeger.URL, "go.micro.client.basis")
		return err
	}
	open := func(trace string) func() error {
		return func() error {
			if err := search(); err != nil {
				return err
			}
			_, err := b.Open(ctx, trace)
			return err
		}
	}
	for _, p := range []struct {
		name   string
		height int // height of the part of the page that is not blank, in pixels
		show   []func() error
	}{
		{"jaeger-search.png", 1180, []func() error{search}},
		{"jaeger-trace.png", 375, []func() error{open(story.Waited)}},
		{"jaeger-failed-trace.png", 495, []func() error{
			open(story.Failed),
			func() error { _, err := b.Unfold(ctx); return err },
			func() error { return b.HideProcess(ctx) },
		}},
		{"consul-service.png", 390, []func() error{
			func() error {
				_, err := b.Instances(ctx, "http://"+s.Consul.Addr, "go.micro.srv.basis", 2)
				return err
			},
		}},
	} {
		for _, show := range p.show {
			if err := show(); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
		picture, err := b.Picture(ctx, p.height)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := write(filepath.Join(target, p.name), picture); err != nil {
			return err
		}
	}
	return nil
}

// takeDemo runs the demo, draws the last steps of its output, and writes the picture into the
// directory target. root is the project's top directory, and dir is the directory of the demo's
// program.
func takeDemo(ctx context.Context, root, dir, target string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./demo")
	build.Dir = filepath.Join(root, "dev")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the demo: %w", err)
	}
	demo := exec.CommandContext(ctx, filepath.Join(dir, "demo"))
	demo.Stderr = os.Stderr
	out, err := demo.Output()
	if err != nil {
		return fmt.Errorf("running the demo: %w; its output:\n%s", err, out)
	}
	text, err := excerpt(string(out))
	if err != nil {
		return err
	}
	return write(filepath.Join(target, "demo.svg"), draw(text))
}

// firstShown is the beginning of the title of the first step in the picture: the step of the
// limiter.
const firstShown = "== 3. "

// address matches an IPv4 address.
var address = regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`)

// excerpt returns the demo's command, and below it the demo's output from firstShown on. It
// replaces each IPv4 address outside of 127.0.0.0/8 by 192.0.2.2, because the examples of the
// documents have this address too.
func excerpt(out string) (string, error) {
	i := strings.Index(out, firstShown)
	if i < 0 {
		return "", fmt.Errorf("the demo's output has no %q:\n%s", firstShown, out)
	}
	out = address.ReplaceAllStringFunc(out[i:], func(a string) string {
		if strings.HasPrefix(a, "127.") {
			return a
		}
		return "192.0.2.2"
	})
	return "$ make demo\n...\n\n" + out, nil
}

// write writes a picture to path. It returns an error if the picture is larger than maxSize.
func write(path string, picture []byte) error {
	if len(picture) > maxSize {
		return fmt.Errorf("%s would have %d bytes, more than %d; let it show less", path, len(picture), maxSize)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes\n", path, len(picture))
	return nil
}
