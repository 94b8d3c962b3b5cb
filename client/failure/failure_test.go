package failure_test

import (
	"context"
	stderrors "errors"
	"fmt"
	"testing"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/errors"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/failure"
)

const server = "go.micro.srv.basis"

// TestOutcomes tests each row of the table of outcomes.
func TestOutcomes(t *testing.T) {
	type follows struct{ retry, breaker, node bool }
	for _, test := range []struct {
		name    string
		err     error
		outcome failure.Outcome
		follows follows
	}{
		{"2xx", nil, failure.Success, follows{}},
		{"4xx", errors.BadRequest(server, "name is empty"), failure.ClientError, follows{}},
		{"4xx over RPC", stderrors.New(errors.BadRequest(server, "name is empty").Error()), failure.ClientError, follows{}},
		{"404 of the server", errors.NotFound(server, "no such name"), failure.ClientError, follows{}},
		{"408 of the server", errors.Timeout(server, "late"), failure.ServerTimeout, follows{true, true, false}},
		{"429", errors.New(server, "slow down", 429), failure.TooManyRequests, follows{}},
		{"500", errors.InternalServerError(server, "oops"), failure.ServerError, follows{true, true, true}},
		{"501", errors.New(server, "no such method", 501), failure.Unimplemented, follows{}},
		{"503", errors.New(server, "later", 503), failure.ServerError, follows{true, true, true}},
		{"503 over RPC", stderrors.New(errors.New(server, "later", 503).Error()), failure.ServerError, follows{true, true, true}},
		{"connection refused", errors.InternalServerError(failure.ClientID, "refused"), failure.Unreachable, follows{true, true, false}},
		{"404 of the client", errors.NotFound(failure.ClientID, "not found"), failure.Other, follows{false, true, false}},
		{"error of an unknown kind", stderrors.New("oops"), failure.Other, follows{false, true, false}},
		{"caller canceled", context.Canceled, failure.Canceled, follows{}},
		{"caller canceled, in go-micro's words", errors.Timeout(failure.ClientID, "%v", context.Canceled), failure.Canceled, follows{}},
		{"caller's deadline", fmt.Errorf("calling: %w", context.DeadlineExceeded), failure.DeadlineExceeded, follows{false, true, false}},
		{"caller's deadline, in go-micro's words", errors.Timeout(failure.ClientID, "%v", context.DeadlineExceeded), failure.DeadlineExceeded, follows{false, true, false}},
		{"breaker's timeout", hystrix.ErrTimeout, failure.DeadlineExceeded, follows{false, true, false}},
		{"circuit open", hystrix.ErrCircuitOpen, failure.Rejected, follows{}},
		{"too many in flight", hystrix.ErrMaxConcurrency, failure.Rejected, follows{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := failure.Of(test.err)
			require.Equal(t, test.outcome, o)
			require.Equal(t, test.follows, follows{o.Retried(), o.OpensCircuit(), o.EjectsNode()})
			retry, err := failure.Retry(context.Background(), nil, 0, test.err)
			require.NoError(t, err)
			require.Equal(t, test.follows.retry, retry)
		})
	}
}

func TestKindAndDescribe(t *testing.T) {
	bad := errors.BadRequest(server, "name is empty")
	for _, test := range []struct {
		name           string
		err            error
		kind, describe string
	}{
		{"go-micro's", bad, "400 Bad Request", "400 Bad Request: name is empty (go.micro.srv.basis)"},
		{"the same, over RPC", stderrors.New(bad.Error()), "400 Bad Request", "400 Bad Request: name is empty (go.micro.srv.basis)"},
		{"hystrix's", hystrix.ErrCircuitOpen, "hystrix: circuit open", "hystrix: circuit open"},
		{"more than a line", &errors.Error{Id: "a\nb", Code: 400, Detail: "no\r\x1b[2J", Status: "Bad\nRequest"}, `400 Bad\nRequest`, `400 Bad\nRequest: no\r\x1b[2J (a\nb)`},
		{"more than a line, of another kind", stderrors.New("a\nb"), `a\nb`, `a\nb`},
		{"JSON of something else", stderrors.New(`{"a":1}`), `{"a":1}`, `{"a":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.kind, failure.Kind(test.err))
			require.Equal(t, test.describe, failure.Describe(test.err))
		})
	}
}
