package consul

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// An agent runs on this host or near it, so short timeouts are enough. If nothing responds at the
// agent's address, dialTimeout lets a client report this within two seconds. If the agent accepts
// connections but hangs, a client usually reports its own timeout, which is shorter than
// answerTimeout.
const (
	// dialTimeout limits each attempt to connect.
	dialTimeout = 400 * time.Millisecond
	// answerTimeout limits each request. For a blocking query, the wait time is added to this
	// limit.
	answerTimeout = 5 * time.Second
	// firstAnswerTimeout replaces answerTimeout for a lookup while another agent is left to try.
	firstAnswerTimeout = time.Second
)

// timeoutTransport limits each request to timeout, so that an agent that hangs does not block
// callers. The limit of a blocking query also includes its wait time.
type timeoutTransport struct {
	next    http.RoundTripper
	timeout time.Duration
}

func (t timeoutTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	timeout := t.timeout
	if query := req.URL.Query(); query.Has("index") || query.Has("hash") { // a blocking query
		wait, _ := time.ParseDuration(query.Get("wait"))
		timeout = wait + wait/16 + answerTimeout // Consul adds up to 1/16 to the wait time
	}
	ctx, cancel := context.WithTimeoutCause(req.Context(), timeout, fmt.Errorf("no answer within %v", timeout))
	rsp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		defer cancel()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	rsp.Body = &cancelOnClose{rsp.Body, cancel}
	return rsp, nil
}

// cancelOnClose is a response body. Its Close stops the timer of the request.
type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelOnClose) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// indexTransport reads Consul's index from each response, and writes it to *index. If a response
// has no index, indexTransport writes 0.
type indexTransport struct {
	next  http.RoundTripper
	index *uint64
}

func (t indexTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rsp, err := t.next.RoundTrip(req)
	if err == nil {
		*t.index, _ = strconv.ParseUint(rsp.Header.Get("X-Consul-Index"), 10, 64)
	}
	return rsp, err
}
