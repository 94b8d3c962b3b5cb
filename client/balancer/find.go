package balancer

import (
	"context"
	"fmt"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/internal/consul"
)

// findInterval is the pause between two lookups of Find. An mDNS response takes up to
// 100 ms, and may be lost.
const findInterval = 100 * time.Millisecond

// Find waits until the selector of c knows a node of service, or until ctx ends. It also
// fills the selector's cache, before many callers at once would.
//
// It returns at once if the registry fails. The error says what to do, and wraps
// context.Canceled if ctx was canceled.
func Find(ctx context.Context, c client.Client, service string) error {
	r := c.Options().Registry
	late := consul.Explain(r, fmt.Errorf("no answer in time"))
	for {
		found := make(chan error, 1)
		go func() {
			next, err := c.Options().Selector.Select(service)
			if err == nil {
				_, err = next()
			}
			found <- err
		}()
		select {
		case err := <-found:
			switch err {
			case nil:
				return nil
			case registry.ErrNotFound, selector.ErrNotFound, selector.ErrNoneAvailable:
				late = fmt.Errorf(`no node of %s is registered in %s; start one with "go run ./srv"`, service, consul.Place(r))
			default:
				return consul.Explain(r, err)
			}
		case <-ctx.Done():
		}
		select {
		case <-time.After(findInterval):
		case <-ctx.Done():
			if ctx.Err() == context.Canceled {
				return fmt.Errorf("looking for a node of %s: %w", service, ctx.Err())
			}
			return late
		}
	}
}
