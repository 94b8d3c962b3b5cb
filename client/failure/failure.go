// Package failure classifies the outcomes of calls. Retry, circuit breaker and
// balancer all follow its one table.
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

// ClientID is the ID in the errors that go-micro's clients make themselves, as
// opposed to errors that a server returned.
const ClientID = "go.micro.client"

// Outcome is the kind of result that a call, or one attempt of a call, had.
type Outcome int

// The outcomes. Codes are HTTP's, as in go-micro's errors.
const (
	Success          Outcome = iota
	ClientError              // a server's 4xx: every server would reject the request
	TooManyRequests          // a server's 429
	ServerTimeout            // a server's 408
	Unimplemented            // a server's 501
	ServerError              // a server's other 5xx
	Unreachable              // the client's own 5xx: no connection, or a connection that broke
	Canceled                 // the caller gave up
	DeadlineExceeded         // the deadline passed while the call was in flight
	Rejected                 // the breaker did not let the call through
	Other                    // any other error: no node is known, for example
)

// names are the outcomes' names for metrics.
var names = [...]string{
	Success: "success", ClientError: "client_error", TooManyRequests: "too_many_requests",
	ServerTimeout: "server_timeout", Unimplemented: "unimplemented", ServerError: "server_error",
	Unreachable: "unreachable", Canceled: "canceled", DeadlineExceeded: "deadline_exceeded",
	Rejected: "rejected", Other: "other",
}

// String returns the name of the outcome, in lower case and with underscores.
func (o Outcome) String() string { return names[o] }

// policy says what follows from an outcome.
type policy struct {
	retry   bool // go-micro's client attempts the call again, at another node
	breaker bool // the breaker counts a failure of the service
	node    bool // the balancer counts a failure of the node
}

// policies is the one table. The breaker counts a deadline that passed in flight,
// because a service that has become slow looks like that. It does not count a caller
// that gave up, because that says nothing about the service. A node is not blamed
// for a lost connection here: the balancer sees the connection itself.
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

// Retried reports whether the call is to be attempted again.
func (o Outcome) Retried() bool { return policies[o].retry }

// OpensCircuit reports whether the breaker counts the outcome as a failure.
func (o Outcome) OpensCircuit() bool { return policies[o].breaker }

// EjectsNode reports whether the balancer counts the outcome as a failure of the node.
func (o Outcome) EjectsNode() bool { return policies[o].node }

// Of returns the outcome of a call that ended with err, which may be nil. It knows
// go-micro's errors, hystrix's, and those of the context package.
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

// Retry is a client.RetryFunc that follows the table. go-micro's own,
// client.RetryOnError, retries 408 and 500 only.
func Retry(_ context.Context, _ client.Request, _ int, err error) (bool, error) {
	return Of(err).Retried(), nil
}

// Kind names the group that err, which is not nil, belongs to: the text of hystrix's
// errors, as "hystrix: timeout", and the code of go-micro's, as "400 Bad Request".
func Kind(err error) string {
	if e := parse(err); e != nil {
		return oneline.Escape(fmt.Sprintf("%d %s", e.Code, e.Status))
	}
	return oneline.Escape(err.Error())
}

// Describe returns err, which is not nil, as one line of text. go-micro's own text of
// its errors is JSON.
func Describe(err error) string {
	if e := parse(err); e != nil {
		return Kind(err) + oneline.Escape(fmt.Sprintf(": %s (%s)", e.Detail, e.Id))
	}
	return Kind(err)
}

// parse returns err as go-micro's error, or nil if err is none. The RPC client
// returns the text alone.
func parse(err error) *microerrors.Error {
	if e, ok := err.(*microerrors.Error); ok {
		return e
	}
	if e := microerrors.Parse(err.Error()); e.Code > 0 {
		return e
	}
	return nil
}
