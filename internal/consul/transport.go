package consul

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// An agent is on this machine or next to it, and a client that finds none, or
// one that hangs, should say so within two seconds.
const (
	// dialTimeout bounds each attempt to connect.
	dialTimeout = 400 * time.Millisecond
	// answerTimeout bounds all others; a blocking query may also take the time that it
	// asks Consul to wait.
	answerTimeout = 5 * time.Second
	// firstAnswerTimeout bounds a lookup in its place while there is another agent to ask.
	firstAnswerTimeout = time.Second
)

// timeoutTransport sets a timeout for each request, so that an agent that hangs does not
// block its callers.
type timeoutTransport struct {
	next    http.RoundTripper
	timeout time.Duration
}

func (t timeoutTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	timeout := t.timeout
	if query := req.URL.Query(); query.Has("index") || query.Has("hash") { // a blocking query
		wait, _ := time.ParseDuration(query.Get("wait"))
		timeout = wait + wait/16 + answerTimeout // Consul waits for up to a 16th longer
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

// cancelOnClose frees a request's timer when its answer has been read.
type cancelOnClose struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelOnClose) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
