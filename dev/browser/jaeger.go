package browser

import (
	"context"
	"fmt"
	"path"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Found is a trace in the list of Jaeger's search page.
type Found struct {
	ID       string   // of the trace
	Title    string   // service and operation of the root span
	Spans    int      // number of spans
	Errors   int      // number of spans that are marked as failed
	Services []string // each with its number of spans, such as "go.micro.srv.basis (2)"
}

// readFound is a JavaScript expression whose value is the page's []Found.
const readFound = `[...document.querySelectorAll(".ResultItem")].map(item => ({
	ID: item.querySelector("a.ResultItemTitle--item").href.split("/trace/")[1],
	Title: item.querySelector(".ResultItemTitle--title").firstChild.textContent,
	Spans: parseInt([...item.querySelectorAll(".ant-tag")].find(tag => / Spans?$/.test(tag.textContent)).textContent),
	Errors: parseInt([...item.querySelectorAll(".ant-tag")].find(tag => / Errors?$/.test(tag.textContent))?.textContent ?? "0"),
	Services: [...item.querySelectorAll(".ResultItem--serviceTag")].map(tag => tag.textContent),
}))`

// Search opens the search page of the Jaeger at url, chooses service, and clicks on Find Traces. It
// waits for the list of traces and returns it, the newest trace first.
func (b *Browser) Search(ctx context.Context, url, service string) ([]Found, error) {
	const input = `.SearchTracePage--find .ant-select input`
	chosen := fmt.Sprintf(`document.querySelector(".SearchTracePage--find .ant-select-selection-item")?.title === %q`, service)
	offered := fmt.Sprintf(`document.querySelector(".ant-select-item-option-active")?.title === %q`, service)
	err := b.do(ctx, "choosing "+service+" on Jaeger's search page",
		chromedp.Navigate(url+"/search"),
		chromedp.Click(chromedp.CSS(input)),
		chromedp.SendKeys(chromedp.CSS(input), service),
		discard(until[bool](offered)),
		chromedp.SendKeys(chromedp.CSS(input), kb.Enter),
		discard(until[bool](chosen)),
		chromedp.WaitEnabled(chromedp.CSS(".SearchForm--submit")),
		chromedp.Click(chromedp.CSS(".SearchForm--submit")),
	)
	if err != nil {
		return nil, err
	}
	return run(ctx, b, "finding traces of "+service+" on Jaeger's search page",
		until[[]Found](`document.querySelector(".ResultItem") && `+readFound))
}

// Trace is the content of the page that Jaeger's UI shows for one trace.
type Trace struct {
	Services int // number of services
	Rows     []Row
}

// Row is a span on the page of a trace. Start and Width are fractions of the trace's duration.
type Row struct {
	Service   string
	Operation string
	Depth     int     // number of ancestors
	Start     float64 // where the bar begins
	Width     float64 // of the bar
	Error     bool    // whether the row has the mark of a failed span
}

// readTrace is a JavaScript expression. Its value is null until the page has all rows. After that,
// its value is the page's Trace.
const readTrace = `(() => {
	const rows = [...document.querySelectorAll(".span-row")];
	const header = name => parseInt([...document.querySelectorAll(".TracePageHeader--overviewItems .LabeledList--item")]
		.find(item => item.textContent.startsWith(name))?.querySelector("strong").textContent);
	if (!rows.length || rows.length !== header("Total Spans")) return null;
	return {
		Services: header("Services"),
		Rows: rows.map(row => ({
			Service: row.querySelector(".span-svc-name").textContent.trim(),
			Operation: row.querySelector(".endpoint-name").textContent,
			Depth: row.querySelectorAll(".SpanTreeOffset--indentGuide").length - 1,
			Start: parseFloat(row.querySelector(".SpanBar--bar").style.left) / 100,
			Width: parseFloat(row.querySelector(".SpanBar--bar").style.width) / 100,
			Error: !!row.querySelector(".SpanBarRow--errorIcon"),
		})),
	};
})()`

// Open clicks on the trace with this ID in the list of the search page, and returns the content of
// the trace's page.
func (b *Browser) Open(ctx context.Context, id string) (Trace, error) {
	err := b.do(ctx, "opening trace "+id, chromedp.Click(chromedp.CSS(fmt.Sprintf(`a.ResultItemTitle--item[href$="/trace/%s"]`, id))))
	if err != nil {
		return Trace{}, err
	}
	return b.read(ctx, id)
}

// Lookup opens the search page of the Jaeger at url, and types id into the field "Lookup by Trace
// ID". It returns the content of the trace's page.
func (b *Browser) Lookup(ctx context.Context, url, id string) (Trace, error) {
	const input = `input[placeholder^="Lookup by Trace ID"]`
	err := b.do(ctx, "looking up trace "+id,
		chromedp.Navigate(url+"/search"),
		chromedp.SendKeys(chromedp.CSS(input), id+kb.Enter),
	)
	if err != nil {
		return Trace{}, err
	}
	return b.read(ctx, id)
}

// Visit opens a link to a trace, and returns the content of the trace's page.
func (b *Browser) Visit(ctx context.Context, link string) (Trace, error) {
	if err := b.do(ctx, "opening "+link, chromedp.Navigate(link)); err != nil {
		return Trace{}, err
	}
	return b.read(ctx, path.Base(link))
}

// read waits for the page of the trace with this ID, and returns the page's content.
func (b *Browser) read(ctx context.Context, id string) (Trace, error) {
	return run(ctx, b, "reading trace "+id, until[Trace](fmt.Sprintf(`location.pathname.endsWith("/trace/%s") && %s`, id, readTrace)))
}

// readTags is a JavaScript expression. Its value is the tags of the unfolded span. If no span is
// unfolded, its value is undefined.
const readTags = `(() => {
	const tags = [...document.querySelectorAll(".detail-row .AccordianKeyValues--header")].find(part => part.textContent.startsWith("Tags:"));
	return tags && Object.fromEntries([...tags.querySelectorAll("li")].map(tag => tag.textContent.split(/=(.*)/s)));
})()`

// Unfold clicks on the first row of a trace's page, and returns the tags that the page then shows
// below the row.
func (b *Browser) Unfold(ctx context.Context) (map[string]string, error) {
	if err := b.do(ctx, "unfolding the first span", chromedp.Click(chromedp.CSS(".span-row .span-name"))); err != nil {
		return nil, err
	}
	return run(ctx, b, "reading the first span's tags", until[map[string]string](readTags))
}

// String returns a row's depth, service and operation.
func (r Row) String() string { return fmt.Sprint(r.Depth, " ", r.Service, " ", r.Operation) }

// HideProcess hides the line "Process" of the unfolded span. This line has the machine's name and
// address.
func (b *Browser) HideProcess(ctx context.Context) error {
	return b.do(ctx, "hiding the process of the unfolded span", discard(until[bool](`(() => {
	const process = [...document.querySelectorAll(".detail-row .AccordianKeyValues--header")].find(part => part.textContent.startsWith("Process:"));
	if (process) process.style.visibility = "hidden";
	return !!process;
})()`)))
}
