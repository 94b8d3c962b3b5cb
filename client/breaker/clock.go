package breaker

import (
	"sync/atomic"
	"time"
)

// maxStepBack is the longest step back of the wall clock that a stepDetector ignores.
const maxStepBack = time.Second

// wallClock watches the wall clock of the process.
var wallClock = &stepDetector{epoch: time.Now()}

// stepDetector detects that the wall clock was set back.
type stepDetector struct {
	epoch time.Time
	ahead atomic.Int64 // wall clock time minus monotonic time, both since epoch, in nanoseconds
}

// steppedBack reports whether the wall clock was set back by more than maxStepBack since an earlier
// call of steppedBack. now is the current time, with a wall clock reading and a monotonic reading.
// If several goroutines call steppedBack after a step, only one of these calls returns true.
func (d *stepDetector) steppedBack(now time.Time) bool {
	wall := now.Round(0).Sub(d.epoch.Round(0)) // Round strips the monotonic reading
	return d.moved(int64(wall - now.Sub(d.epoch)))
}

// moved does the work of steppedBack. The parameter ahead is the current difference between the two
// clocks. The field ahead holds an earlier difference.
func (d *stepDetector) moved(ahead int64) bool {
	before := d.ahead.Load()
	switch back := time.Duration(before - ahead); {
	case back == 0:
		return false
	case back < 0: // the wall clock was set forward
		d.ahead.CompareAndSwap(before, ahead)
		return false
	case back <= maxStepBack:
		return false // keep the earlier difference, so that many small steps add up
	default:
		return d.ahead.CompareAndSwap(before, ahead)
	}
}
