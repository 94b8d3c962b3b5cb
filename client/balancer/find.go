package balancer

import (
	"context"
	"errors"
	"time"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/registry"
)

// ErrNoNode is the error that Find returns if the registry lists no node of the service.
var ErrNoNode = errors.New("no node is registered")

// lookupPause is the pause between two lookups of Find. An mDNS response takes up to 100 ms, and
// may be lost.
const lookupPause = 100 * time.Millisecond

// Find waits until the selector of c knows a node of service, or until ctx ends. It works with any
// selector. A program that uses Find before its first call can tell its user whether the registry
// or a node is missing.
//
// If the registry fails, Find returns the registry's error at once. If the deadline of ctx passes
// after the registry has responded that it lists no node, Find returns ErrNoNode. In all other
// cases, Find returns the error of ctx when ctx ends.
func Find(ctx context.Context, c client.Client, service string) error {
	var late error
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
				late = ErrNoNode
			default:
				return err
			}
		case <-ctx.Done():
		}
		select {
		case <-time.After(lookupPause):
		case <-ctx.Done():
			if late == nil || ctx.Err() == context.Canceled {
				return ctx.Err()
			}
			return late
		}
	}
}
