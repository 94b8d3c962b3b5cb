package failure_test

import (
	stderrors "errors"
	"testing"

	"github.com/afex/hystrix-go/hystrix"
	"github.com/micro/go-micro/errors"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/client/failure"
)

func TestFailures(t *testing.T) {
	bad := errors.BadRequest("go.micro.srv.basis", "name is empty")
	for _, test := range []struct {
		name           string
		err            error
		callers        bool
		servers        bool
		kind, describe string
	}{
		{"bad request", bad, true, false, "400 Bad Request", "400 Bad Request: name is empty (go.micro.srv.basis)"},
		{"the same, over RPC", stderrors.New(bad.Error()), true, false, "400 Bad Request", "400 Bad Request: name is empty (go.micro.srv.basis)"},
		{"not found by the server", errors.NotFound("go.micro.srv.basis", "no such name"), true, false, "404 Not Found", "404 Not Found: no such name (go.micro.srv.basis)"},
		{"no node", errors.NotFound("go.micro.client", "not found"), false, false, "404 Not Found", "404 Not Found: not found (go.micro.client)"},
		{"timeout", errors.Timeout("go.micro.srv.basis", "late"), false, false, "408 Request Timeout", "408 Request Timeout: late (go.micro.srv.basis)"},
		{"server's fault", errors.InternalServerError("go.micro.srv.basis", "oops"), false, true, "500 Internal Server Error", "500 Internal Server Error: oops (go.micro.srv.basis)"},
		{"server's fault, over RPC", stderrors.New(errors.New("go.micro.srv.basis", "later", 503).Error()), false, true, "503 Service Unavailable", "503 Service Unavailable: later (go.micro.srv.basis)"},
		{"connection refused", errors.InternalServerError("go.micro.client", "refused"), false, false, "500 Internal Server Error", "500 Internal Server Error: refused (go.micro.client)"},
		{"breaker", hystrix.ErrCircuitOpen, false, false, "hystrix: circuit open", "hystrix: circuit open"},
		{"more than a line", &errors.Error{Id: "a\nb", Code: 400, Detail: "no\r\x1b[2J", Status: "Bad\nRequest"}, true, false, `400 Bad\nRequest`, `400 Bad\nRequest: no\r\x1b[2J (a\nb)`},
		{"more than a line, of another kind", stderrors.New("a\nb"), false, false, `a\nb`, `a\nb`},
		{"JSON of something else", stderrors.New(`{"a":1}`), false, false, `{"a":1}`, `{"a":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.callers, failure.IsCallerError(test.err))
			require.Equal(t, test.servers, failure.IsServerError(test.err))
			require.Equal(t, test.kind, failure.Kind(test.err))
			require.Equal(t, test.describe, failure.Describe(test.err))
		})
	}
	require.False(t, failure.IsCallerError(nil))
	require.False(t, failure.IsServerError(nil))
}
