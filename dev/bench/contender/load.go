package contender

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Load is calls that a number of callers make, each one as soon as it has the
// answer to its last.
type Load struct {
	Callers int           // each makes one call at least
	Calls   int           // each makes so many calls at least, even after For
	For     time.Duration // no other call begins after this time
}

// Result is what came of a Load.
type Result struct {
	Calls   int           // that were answered rightly
	Failed  int           // all others
	Err     string        // the first of those; empty if there are none
	Elapsed time.Duration // from the first call to the last answer
	P50     time.Duration // of all calls, half took no longer
	P99     time.Duration // of all calls, 99 in 100 took no longer
	Mallocs uint64        // objects that the process allocated meanwhile
}

// newHistogram returns one of nanoseconds up to a minute, to 1%. It takes 30 kB;
// ten times as fine, those of all callers would be most of the client's memory.
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

// one makes one call and checks the answer.
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
