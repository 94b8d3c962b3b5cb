package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gomicroexample/basis/dev/internal/backend"
)

var (
	metricsURL   = regexp.MustCompile(`Metrics on (\S+)`)
	currentState = regexp.MustCompile(`(?m)^basis_circuit_state\{.*state="(\w+)"\} 1$`)
)

// lookInterval is the pause between two requests for the metrics. It is much shorter than a trial
// call to a slow server, which is in flight for 300 ms.
const lookInterval = 20 * time.Millisecond

// circuit records the states of a client's circuit over time, as the client's metrics report
// them.
type circuit struct {
	changes  []change
	halfOpen chan struct{} // closed when the metrics have reported a half-open circuit
	stop     context.CancelFunc
	stopped  chan struct{} // closed when follow has returned
}

// change is one change of the circuit's state. The field after is the time from the first observed
// state to this change.
type change struct {
	state string
	after time.Duration
}

// watchCircuit starts to poll a client's metrics. The polling stops when the method end is called,
// or when ctx is done.
func watchCircuit(ctx context.Context, client *backend.Process) (*circuit, error) {
	if err := client.WaitLog(ctx, metricsURL, 1); err != nil {
		return nil, err
	}
	log, err := os.ReadFile(client.Log)
	if err != nil {
		return nil, err
	}
	url := string(metricsURL.FindSubmatch(log)[1])
	ctx, stop := context.WithCancel(ctx)
	c := &circuit{halfOpen: make(chan struct{}), stop: stop, stopped: make(chan struct{})}
	go func() {
		defer close(c.stopped)
		c.follow(ctx, url)
	}()
	return c, nil
}

func (c *circuit) follow(ctx context.Context, url string) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	var first time.Time
	var seen sync.Once
	for {
		// Before the client's first call, the metrics do not contain a circuit.
		metrics, err := backend.Get(ctx, url)
		if m := currentState.FindSubmatch(metrics); err == nil && m != nil {
			if first.IsZero() {
				first = time.Now()
			}
			if n := len(c.changes); n == 0 || c.changes[n-1].state != string(m[1]) {
				c.changes = append(c.changes, change{string(m[1]), time.Since(first)})
			}
			if string(m[1]) == "half_open" {
				seen.Do(func() { close(c.halfOpen) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// waitHalfOpen waits until the metrics have reported a half-open circuit.
func (c *circuit) waitHalfOpen(ctx context.Context) error {
	select {
	case <-c.halfOpen:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the circuit to be half open: %w", ctx.Err())
	}
}

// end stops the polling and prints the states of the circuit. It returns an error if the circuit
// did not open, become half open and then close.
func (c *circuit) end() error {
	c.stop()
	<-c.stopped
	var states, shown []string
	for _, change := range c.changes {
		states = append(states, change.state)
		shown = append(shown, fmt.Sprintf("%s after %.1f s", change.state, change.after.Seconds()))
	}
	fmt.Printf("   Circuit, by the client's metrics: %s\n", strings.Join(shown, ", "))
	if all := strings.Join(states, " "); !strings.Contains(all, "open half_open") || !strings.HasSuffix(all, "closed") {
		return fmt.Errorf("the circuit was %s; want it to open, half open and close", all)
	}
	return nil
}
