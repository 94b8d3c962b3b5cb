package backend

import (
	"context"
	"time"
)

// Until calls condition at once and then at each interval, until condition returns nil. If ctx
// ends first, Until returns the last error that condition returned before ctx ended.
func Until(ctx context.Context, interval time.Duration, condition func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error
	for {
		err := condition()
		if err == nil {
			return nil
		}
		// If ctx has ended, err may say only that ctx has ended. Then keep the error of the
		// previous call of condition.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last
		}
	}
}
