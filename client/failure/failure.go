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

// IsCallerError reports whether err is a server's 4xx other than a timeout (408): any
// server would refuse the request. The client's own (ClientID) are about reaching a server.
func IsCallerError(err error) bool {
	e := parse(err)
	return e != nil && e.Code >= 400 && e.Code < 500 && e.Code != 408 && e.Id != ClientID
}

// IsServerError reports whether err is a server's 5xx.
func IsServerError(err error) bool {
	e := parse(err)
	return e != nil && e.Code >= 500 && e.Code < 600 && e.Id != ClientID
}

// Retry is for go-micro's option of that name. It is client.RetryOnError, which of the
// 5xx retries 500 only, for all of them.
func Retry(ctx context.Context, req client.Request, count int, err error) (bool, error) {
	if IsServerError(err) {
		return true, nil
	}
	return client.RetryOnError(ctx, req, count, err)
}

// Kind groups errors that are not nil: hystrix's by text, as "hystrix: timeout", and go-micro's by
// code, as "400 Bad Request". What servers sent is on one line.
func Kind(err error) string {
	if e := parse(err); e != nil {
		return oneline.Escape(fmt.Sprintf("%d %s", e.Code, e.Status))
	}
	return oneline.Escape(err.Error())
}

// Describe puts err, which is not nil, in words, on one line. go-micro's own are JSON.
func Describe(err error) string {
	if e := parse(err); e != nil {
		return Kind(err) + oneline.Escape(fmt.Sprintf(": %s (%s)", e.Detail, e.Id))
	}
	return Kind(err)
}

// parse returns err as go-micro's error, or nil if it is none. The RPC client's are
// the text alone.
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
