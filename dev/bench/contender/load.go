package contender

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Load describes calls of concurrent callers. Each caller makes its next call as soon as it has the
// response to its previous call.
type Load struct {
	Callers int           // the number of callers; each makes at least one call
	Calls   int           // the minimum number of calls per caller, even if these calls take longer than For
	For     time.Duration // for how long each caller begins new calls
}

// Result is the outcome of a Load.
type Result struct {
	Calls   int           // calls with the correct response
	Failed  int           // all other calls
	Err     string        // the error of the first failed call; empty if no call failed
	Elapsed time.Duration // from the first call to the last response
	P50     time.Duration // the median latency of Calls
	P99     time.Duration // the 99th percentile of the latency of Calls
	Mallocs uint64        // objects that the process allocated during the load
}

// newHistogram returns a histogram of nanoseconds up to one minute, with a precision of 1%. A
// histogram takes 30 kB, and each caller has one histogram. With a precision of 0.1%, the
// histograms would take most of the client's memory.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute), 2)
}

const (
	name = "John"
	want = "Hello John"
)

// make makes the load's calls.
func (l Load) make(ctx context.Context, call Call) Result {
	var (
		r          Result
		mu         sync.Mutex // guards r
		callers    sync.WaitGroup
		histograms = make([]*hdrhistogram.Histogram, l.Callers) // one per caller
	)
	for i := range histograms {
		histograms[i] = newHistogram()
	}
	mallocs := countMallocs()
	start := time.Now()
	for _, h := range histograms {
		callers.Go(func() {
			for made := 0; made == 0 || made < l.Calls || time.Since(start) < l.For; made++ {
				begin := time.Now()
				err := one(ctx, call)
				if err == nil {
					err = h.RecordValue(time.Since(begin).Nanoseconds())
				}
				if err != nil {
					mu.Lock()
					if r.Failed++; r.Failed == 1 {
						r.Err = err.Error()
					}
					mu.Unlock()
				}
			}
		})
	}
	callers.Wait()
	r.Elapsed = time.Since(start)
	r.Mallocs = countMallocs() - mallocs
	all := newHistogram()
	for _, h := range histograms {
		all.Merge(h)
	}
	r.Calls = int(all.TotalCount())
	r.P50 = time.Duration(all.ValueAtQuantile(50))
	r.P99 = time.Duration(all.ValueAtQuantile(99))
	return r
}

// one makes one call and checks the response.
func one(ctx context.Context, call Call) error {
	msg, err := call(ctx, name)
	if err == nil && msg != want {
		err = fmt.Errorf("answer is %q; want %q", msg, want)
	}
	return err
}

func countMallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
