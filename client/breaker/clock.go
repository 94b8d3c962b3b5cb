package breaker

import (
	"sync/atomic"
	"time"
)

// maxStepBack is how far the wall clock may be set back without effect.
const maxStepBack = time.Second

// wallClock is the wall clock of the process.
var wallClock = &stepDetector{epoch: time.Now()}

// stepDetector finds out when the wall clock is set back.
type stepDetector struct {
	epoch time.Time
	ahead atomic.Int64 // how far the wall clock was ahead of the monotonic one since epoch, in nanoseconds
}

// steppedBack reports whether the wall clock was set back between an earlier call and now,
// which has a wall clock and a monotonic reading. Of concurrent calls one returns true.
func (d *stepDetector) steppedBack(now time.Time) bool {
	wall := now.Round(0).Sub(d.epoch.Round(0)) // Round strips the monotonic reading
	return d.moved(int64(wall - now.Sub(d.epoch)))
}

// moved is steppedBack for a wall clock that is so far ahead now.
func (d *stepDetector) moved(ahead int64) bool {
	before := d.ahead.Load()
	if ahead == before || ahead < before && before-ahead <= int64(maxStepBack) {
		return false
	}
	return d.ahead.CompareAndSwap(before, ahead) && ahead < before
}
