package backend

import (
	"context"
	"fmt"
	"time"
)

// Until calls condition at once and then at each interval, until condition returns nil. If ctx
// ends first, the error of Until wraps the condition's last error and that of ctx.
func Until(ctx context.Context, interval time.Duration, condition func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
