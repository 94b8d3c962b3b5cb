package consul

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// An agent is on this machine or next to it, and a client that finds none, or
// one that hangs, should say so within a second.
const (
	// dialTimeout bounds each attempt to connect.
	dialTimeout = 400 * time.Millisecond
	// answerTimeout bounds all others but blocking queries, which wait for minutes.
	answerTimeout = 5 * time.Second
)

// timeoutTransport sets a timeout for each request, so that an agent that hangs does not
// block its callers.
type timeoutTransport struct{ next http.RoundTripper }

func (t timeoutTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Query().Has("index") { // a blocking query
		return t.next.RoundTrip(req)
	}
	ctx, cancel := context.WithTimeoutCause(req.Context(), answerTimeout, fmt.Errorf("no answer within %v", answerTimeout))
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
