package tracer

import (
	"errors"
	"io"
	"log"
	"sync"
	"sync/atomic"
	"time"

	jaeger "github.com/uber/jaeger-client-go"
	"github.com/uber/jaeger-client-go/utils"
)

const (
	// resolveTimeout is how long newTransport waits for the name in an address:
	// long enough for a program that makes one call and exits, and too short for
	// anyone to notice that the name server is away.
	resolveTimeout = 200 * time.Millisecond
	// resolveInterval is how often the name is resolved anew: a Jaeger that was
	// started late, or moved, gets spans within that time.
	resolveInterval = 5 * time.Second
	// closeTimeout is how long the end of a program waits for its last spans.
	closeTimeout = time.Second
)

var errResolving = errors.New("the name in Jaeger's address is still being looked up")

// transport is jaeger-client-go's transport for UDP. It is created in the background,
// because creating it looks up the name in the address. Until then spans are dropped.
type transport struct {
	udp atomic.Pointer[jaeger.Transport] // nil until the first lookup has ended

	mu     sync.Mutex
	closed bool
}

func newTransport(addr string, logger jaeger.Logger) jaeger.Transport {
	t := &transport{}
	resolved := make(chan struct{})
	go func() {
		defer close(resolved)
		udp, err := jaeger.NewUDPTransportWithParams(jaeger.UDPTransportParams{
			AgentClientUDPParams: utils.AgentClientUDPParams{
				HostPort: addr, Logger: logger, AttemptReconnectInterval: resolveInterval,
			},
		})
		if err != nil {
			logger.Error(err.Error())
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.closed {
			udp.Close()
			return
		}
		t.udp.Store(&udp)
	}()
	select {
	case <-resolved:
	case <-time.After(resolveTimeout):
	}
	return t
}

func (t *transport) Append(span *jaeger.Span) (int, error) {
	if udp := t.udp.Load(); udp != nil {
		return (*udp).Append(span)
	}
	return 1, errResolving
}

func (t *transport) Flush() (int, error) {
	if udp := t.udp.Load(); udp != nil {
		return (*udp).Flush()
	}
	return 0, nil
}

func (t *transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if udp := t.udp.Load(); udp != nil {
		return (*udp).Close()
	}
	return nil
}

// timeoutCloser closes a tracer within closeTimeout.
type timeoutCloser struct{ io.Closer }

func (c timeoutCloser) Close() error {
	closed := make(chan error, 1)
	go func() { closed <- c.Closer.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTimeout):
		log.Printf("jaeger: the last spans were not sent within %v", closeTimeout)
		return nil
	}
}
