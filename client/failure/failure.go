// Package failure classifies the outcomes of calls. Its table of outcomes controls retries, the
// circuit breaker and the balancer.
package failure

import (
	"context"
	"errors"
	"fmt"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/client"
	microerrors "github.com/micro/go-micro/errors"

	"github.com/gomicroexample/basis/internal/oneline"
)

// ClientID is the ID of the errors that go-micro's clients create themselves. The errors of a
// go-micro server have other IDs.
const ClientID = "go.micro.client"

// Outcome is the kind of result of a call, or of one attempt of a call.
type Outcome int

// The outcomes. The codes are HTTP status codes, as in go-micro's errors.
const (
	Success          Outcome = iota
	ClientError              // 4xx from a server, except 408 and 429: every server would reject the request
	TooManyRequests          // 429 from a server
	ServerTimeout            // 408 from a server
	Unimplemented            // 501 from a server
	ServerError              // any other error code from a server, for example 500 or 503
	Unreachable              // 5xx from the client itself, for example: no node is known, or the connection was lost
	Canceled                 // the caller canceled the call
	DeadlineExceeded         // the call's deadline or the breaker's timeout passed
	Rejected                 // the breaker rejected the call
	Other                    // any other error
)

// names are the names of the outcomes in metrics.
var names = [...]string{
	Success: "success", ClientError: "client_error", TooManyRequests: "too_many_requests",
	ServerTimeout: "server_timeout", Unimplemented: "unimplemented", ServerError: "server_error",
	Unreachable: "unreachable", Canceled: "canceled", DeadlineExceeded: "deadline_exceeded",
	Rejected: "rejected", Other: "other",
}

// String returns the name of the outcome, in lower case and with underscores.
func (o Outcome) String() string { return names[o] }

// policy is the reaction to an outcome.
type policy struct {
	retry   bool // go-micro's client retries the call
	breaker bool // the breaker counts a failure of the service
	node    bool // the balancer counts a failure of the node
}

// policies is the table of reactions. The breaker counts DeadlineExceeded, because calls to a slow
// service end this way. The breaker does not count Canceled: the caller canceled the call, and the
// service may be healthy. Unreachable is not a failure of the node here, because the balancer
// watches the node's connection itself.
var policies = [...]policy{
	//                 retry  breaker node
	Success:          {false, false, false},
	ClientError:      {false, false, false},
	TooManyRequests:  {false, false, false},
	ServerTimeout:    {true, true, false},
	Unimplemented:    {false, false, false},
	ServerError:      {true, true, true},
	Unreachable:      {true, true, false},
	Canceled:         {false, false, false},
	DeadlineExceeded: {false, true, false},
	Rejected:         {false, false, false},
	Other:            {false, true, false},
}

// Retried reports whether the client retries a call whose attempt has this outcome.
func (o Outcome) Retried() bool { return policies[o].retry }

// OpensCircuit reports whether the breaker counts the outcome as a failure.
func (o Outcome) OpensCircuit() bool { return policies[o].breaker }

// EjectsNode reports whether the balancer counts the outcome as a failure of the node.
func (o Outcome) EjectsNode() bool { return policies[o].node }

// Of returns the outcome of a call that returned err. A nil err is a Success. Of recognizes the
// errors of go-micro, of hystrix and of package context. Any other error is Other.
func Of(err error) Outcome {
	switch {
	case err == nil:
		return Success
	case errors.Is(err, hystrix.ErrMaxConcurrency), errors.Is(err, hystrix.ErrCircuitOpen):
		return Rejected
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, hystrix.ErrTimeout):
		return DeadlineExceeded
	}
	e := parse(err)
	switch {
	case e == nil:
		return Other
	case e.Id == ClientID && e.Code == 408 && e.Detail == context.Canceled.Error():
		return Canceled
	case e.Id == ClientID && e.Code == 408:
		return DeadlineExceeded
	case e.Id == ClientID && e.Code >= 500:
		return Unreachable
	case e.Id == ClientID:
		return Other
	case e.Code == 408:
		return ServerTimeout
	case e.Code == 429:
		return TooManyRequests
	case e.Code == 501:
		return Unimplemented
	case e.Code >= 400 && e.Code < 500:
		return ClientError
	default:
		return ServerError
	}
}

// Retry is a client.RetryFunc that returns Of(err).Retried() and no error. In contrast, go-micro's
// default RetryFunc, client.RetryOnError, retries only 408 and 500.
func Retry(_ context.Context, _ client.Request, _ int, err error) (bool, error) {
	return Of(err).Retried(), nil
}

// Kind returns the kind of err, for counting errors by kind. err must not be nil. The kind of a
// go-micro error is its code and status, as in "400 Bad Request". The kind of any other error is
// the error's text, as in "hystrix: timeout". Kind escapes the text as oneline.Escape does.
func Kind(err error) string {
	if e := parse(err); e != nil {
		return oneline.Escape(fmt.Sprintf("%d %s", e.Code, e.Status))
	}
	return oneline.Escape(err.Error())
}

// Describe returns err as one line of text. err must not be nil. For a go-micro error, the line has
// the code, status, detail and ID; the Error method of go-micro's errors returns JSON instead.
func Describe(err error) string {
	if e := parse(err); e != nil {
		return Kind(err) + oneline.Escape(fmt.Sprintf(": %s (%s)", e.Detail, e.Id))
	}
	return Kind(err)
}

// parse returns err as a go-micro error, or nil if err is not a go-micro error. go-micro's RPC
// client returns only the text of a go-micro error; parse also reads this text.
func parse(err error) *microerrors.Error {
	if e, ok := err.(*microerrors.Error); ok {
		return e
	}
	if e := microerrors.Parse(err.Error()); e.Code > 0 {
		return e
	}
	return nil
}
