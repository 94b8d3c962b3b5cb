// Package browser opens the pages of Jaeger and Consul in a headless Chromium, clicks on elements,
// and reads what the pages show. The tests of this package check the pages. The command in the
// folder pictures uses this package to take the pictures in docs/pictures.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

const (
	// limit is the time limit for one action in a page. On a busy machine, an action takes a few
	// seconds.
	limit = time.Minute
	// pollInterval is the time between two checks of a page for the result of an action.
	pollInterval = 50 * time.Millisecond
)

// ErrMissing means that no Chromium is installed.
var ErrMissing = errors.New(`no Chromium on PATH; install Debian's package "chromium", or name one with CHROMIUM_BIN`)

// Find returns the path of Chromium. If the variable CHROMIUM_BIN is set, Find returns the
// executable that the variable names, or an error if there is no such executable. Otherwise, Find
// looks on PATH for chromium, chromium-browser and google-chrome, in this order. If PATH has none
// of these, Find returns ErrMissing.
func Find() (string, error) {
	if name := os.Getenv("CHROMIUM_BIN"); name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("CHROMIUM_BIN: %w", err)
		}
		return path, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Browser is a Chromium with one page.
type Browser struct {
	tab   context.Context // chromedp's context of the page
	end   context.CancelFunc
	width int // of the page, in pixels
}

// Start starts Chromium with an empty page of width x height pixels. Each browser has its own
// profile. Start uses the Chromium that Find returns. Close stops the browser.
func Start(width, height int) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	// If this process runs as root, chromedp adds the flag --no-sandbox.
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("lang", "en-US"),
		chromedp.Env("TZ=UTC", "LANGUAGE=en_US"),
		chromedp.WindowSize(width, height),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	tab, closeTab := chromedp.NewContext(allocator)
	b := &Browser{tab: tab, width: width, end: func() {
		closeTab()
		stop() // waits for the process, and removes its profile
	}}
	// The browser stops when the context of its first action ends. So this context must not have a
	// deadline.
	late := time.AfterFunc(limit, stop)
	err = chromedp.Do(tab, chromedp.EmulateViewport(int64(width), int64(height)), onEachPage(wideNames))
	if !late.Stop() && err != nil {
		err = fmt.Errorf("not ready after %v: %w", limit, err)
	}
	if err != nil {
		b.end()
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return b, nil
}

// wideNames is JavaScript that widens the column of names on Jaeger's page of a trace, so that the
// names fit. A user can do the same with the mouse.
const wideNames = `localStorage.setItem("spanNameColumnWidth", "0.4")`

// onEachPage runs script in each page before the page's own JavaScript.
func onEachPage(script string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		return err
	})
}

// Close stops the browser and all its processes, and removes its profile.
func (b *Browser) Close() error {
	ctx, cancel := context.WithTimeout(b.tab, limit)
	defer cancel()
	err := chromedp.Cancel(ctx)
	b.end()
	if err != nil {
		return fmt.Errorf("closing the browser: %w", err)
	}
	return nil
}

// run runs an action in the page of b. The action stops when ctx is done, or after the time limit.
// label is the name of the action for errors. If the action fails, the error contains label and the
// text of the page.
func run[T any](ctx context.Context, b *Browser, label string, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tab, interrupt := context.WithCancel(b.tab)
	defer interrupt()
	defer context.AfterFunc(ctx, interrupt)()
	v, err := chromedp.Run(tab, action)
	if err == nil {
		return v, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return v, fmt.Errorf("%s: %w; %s", label, err, b.shows())
}

// do runs steps one after another, in the same way as run. Steps have no results.
func (b *Browser) do(ctx context.Context, label string, steps ...chromedp.Action[chromedp.Void]) error {
	_, err := run(ctx, b, label, chromedp.Steps(steps...))
	return err
}

// shows returns the URL of the page and the beginning of its text, for an error.
func (b *Browser) shows() string {
	ctx, cancel := context.WithTimeout(b.tab, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + " shows: " + document.body.innerText.slice(0, 1000)`))
	if err != nil {
		return fmt.Sprintf("the page does not answer: %v", err)
	}
	return strings.Join(strings.Fields(text), " ")
}

// until returns an action that waits until a JavaScript expression is truthy in the page. The
// result of the action is the expression's value.
func until[T any](expression string) chromedp.Action[T] {
	return chromedp.Poll[T](expression, chromedp.WithPollingInterval(pollInterval), chromedp.WithPollingTimeout(0))
}

// discard returns an action that runs action and drops the result.
func discard[T any](action chromedp.Action[T]) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := action(ctx, t)
		return chromedp.Void{}, err
	}
}

// unchanged is a JavaScript expression that becomes true when ten consecutive checks found the page
// unchanged. Until then, an animation of a chart or a menu may be running.
const unchanged = `(() => {
	const now = document.body.outerHTML;
	window.basisLooks = now === window.basisLast ? window.basisLooks + 1 : 0;
	window.basisLast = now;
	return window.basisLooks >= 10;
})()`

// Picture waits until all animations in the page have ended. It returns a screenshot of the upper
// part of the page, as a PNG. height is the height of this part in pixels.
func (b *Browser) Picture(ctx context.Context, height int) ([]byte, error) {
	return run(ctx, b, "taking a picture", func(ctx context.Context, t *chromedp.Target) ([]byte, error) {
		if _, err := until[bool](unchanged)(ctx, t); err != nil {
			return nil, err
		}
		shot, err := cdp.Call(ctx, t, page.CaptureScreenshot, page.CaptureScreenshotParams{
			Clip: &page.Viewport{Width: float64(b.width), Height: float64(height), Scale: 1},
		})
		return shot.Data, err
	})
}
