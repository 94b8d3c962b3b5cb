// Package browser opens the pages of Jaeger and Consul in a headless Chromium, clicks on elements, and
// reads what the pages show. Its tests test the pages. The command pictures uses the
// package to take the pictures in docs/pictures.
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
	// limit is the time limit for one action in a page. A busy machine needs a few seconds.
	limit = time.Minute
	// pollInterval is the time between two checks of a page for the result of an action.
	pollInterval = 50 * time.Millisecond
)

// ErrMissing means that no Chromium is installed.
var ErrMissing = errors.New(`no Chromium on PATH; install Debian's package "chromium", or name one with CHROMIUM_BIN`)

// Find returns the path of Chromium. It takes the binary that CHROMIUM_BIN names, or else chromium,
// chromium-browser or google-chrome on PATH. If there is none, it returns ErrMissing. If CHROMIUM_BIN
// does not name an executable, it returns another error.
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
// profile. Find finds the Chromium. Close stops it.
func Start(width, height int) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	// As root, chromedp adds --no-sandbox.
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
	// The browser stops when the context of its first action ends. So this context cannot have a
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
// names fit. A user would drag the column's edge.
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

// run runs an action in the page of b. The action stops when ctx is done, or after limit. If the
// action fails, the error has label, the name of the action, and the text of the page.
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

// do runs steps without a result, as run does.
func (b *Browser) do(ctx context.Context, label string, steps ...chromedp.Action[chromedp.Void]) error {
	_, err := run(ctx, b, label, chromedp.Steps(steps...))
	return err
}

// shows returns the text of the page, for an error.
func (b *Browser) shows() string {
	ctx, cancel := context.WithTimeout(b.tab, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + " shows: " + document.body.innerText.slice(0, 1000)`))
	if err != nil {
		return fmt.Sprintf("the page does not answer: %v", err)
	}
	return strings.Join(strings.Fields(text), " ")
}

// until waits until a JavaScript expression is truthy in the page, and returns the expression's value.
func until[T any](expression string) chromedp.Action[T] {
	return chromedp.Poll[T](expression, chromedp.WithPollingInterval(pollInterval), chromedp.WithPollingTimeout(0))
}

// discard drops the result of an action.
func discard[T any](action chromedp.Action[T]) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := action(ctx, t)
		return chromedp.Void{}, err
	}
}

// still is a JavaScript expression that is true once ten checks in a row found the same page. Charts
// and menus are animated.
const still = `(() => {
	const now = document.body.outerHTML;
	window.basisLooks = now === window.basisLast ? window.basisLooks + 1 : 0;
	window.basisLast = now;
	return window.basisLooks >= 10;
})()`

// Picture waits until all animations in the page have ended. It returns a screenshot of the page's
// upper part, height pixels high, as a PNG.
func (b *Browser) Picture(ctx context.Context, height int) ([]byte, error) {
	return run(ctx, b, "taking a picture", func(ctx context.Context, t *chromedp.Target) ([]byte, error) {
		if _, err := until[bool](still)(ctx, t); err != nil {
			return nil, err
		}
		shot, err := cdp.Call(ctx, t, page.CaptureScreenshot, page.CaptureScreenshotParams{
			Clip: &page.Viewport{Width: float64(b.width), Height: float64(height), Scale: 1},
		})
		return shot.Data, err
	})
}
