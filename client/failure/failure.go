// Package failure tells apart why calls fail.
package failure

import (
	"context"
	"fmt"

	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"

	"github.com/gomicroexample/basis/internal/oneline"
)

// ClientID is what go-micro's clients call themselves in errors of their own.
const ClientID = "go.micro.client"

// IsCallers reports whether err says that the request was wrong, so that any
// server would refuse it: a go-micro error of 400 to 499 that a server
// returned, but not a timeout (408). Those that go-micro's client makes itself
// (ClientID) are about finding and reaching a server.
func IsCallers(err error) bool {
	e := parse(err)
	return e != nil && e.Code >= 400 && e.Code < 500 && e.Code != 408 && e.Id != ClientID
}

// IsServers reports whether err says that a server failed: a go-micro error of
// 500 to 599 that it returned. Another server may do better.
func IsServers(err error) bool {
	e := parse(err)
	return e != nil && e.Code >= 500 && e.Code < 600 && e.Id != ClientID
}

// Retry reports whether a call that failed may do better at another node, for
// go-micro's option client.Retry. It is go-micro's own function, which knows of 500
// only, for all of 5xx.
func Retry(ctx context.Context, req client.Request, count int, err error) (bool, error) {
	if IsServers(err) {
		return true, nil
	}
	return client.RetryOnError(ctx, req, count, err)
}

// Kind groups failures: one of hystrix by its text, as "hystrix: timeout", and
// one of go-micro by its code, as "400 Bad Request". It is on one line, whatever a
// server sent.
func Kind(err error) string {
	if e := parse(err); e != nil {
		return oneline.Escape(fmt.Sprintf("%d %s", e.Code, e.Status))
	}
	return oneline.Escape(err.Error())
}

// Describe puts err in words, on one line. go-micro's own text is JSON.
func Describe(err error) string {
	if e := parse(err); e != nil {
		return Kind(err) + oneline.Escape(fmt.Sprintf(": %s (%s)", e.Detail, e.Id))
	}
	return Kind(err)
}

// parse returns err as go-micro's error, or nil if it is none. The gRPC client
// returns that type; the RPC client one with the same text.
func parse(err error) *errors.Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*errors.Error); ok {
		return e
	}
	if e := errors.Parse(err.Error()); e.Code > 0 {
		return e
	}
	return nil
}
