package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// ErrDenied reports that Consul's ACLs do not allow a request.
var ErrDenied = errors.New("permission denied")

// skipTime is how long the registry avoids an agent after the failure of this agent: the registry
// then tries the agent after all other agents.
const skipTime = 5 * time.Second

// agents returns the addresses of all agents in the order in which to try the agents. Agents that
// failed less than skipTime ago come after all other agents. Apart from this, the order is the
// configured order.
func (r *consulRegistry) agents() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var up, down []string
	for _, address := range r.addresses() {
		if time.Since(r.failed[address]) < skipTime {
			down = append(down, address)
		} else {
			up = append(up, address)
		}
	}
	return slices.Concat(up, down)
}

// first returns the first configured address.
func (r *consulRegistry) first() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addresses()[0]
}

// try calls f with the address of one agent after another, until f succeeds. try also stops at an
// error of an available agent, because other agents would return the same error. last reports
// whether address is the last address. The error of try has the errors of all tried agents.
func (r *consulRegistry) try(f func(address string, last bool) error) error {
	var failed agentErrors
	agents := r.agents()
	for i, address := range agents {
		err := r.denied(f(address, i == len(agents)-1))
		r.note(address, err)
		if err == nil {
			return nil
		}
		failed = append(failed, agentError{address, err})
		if !unavailable(err) {
			break
		}
	}
	return failed
}

// note records whether the agent at address is unavailable. err is the result of a request to this
// agent. If an available agent returned an error, note changes nothing.
func (r *consulRegistry) note(address string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if unavailable(err) {
		r.failed[address] = time.Now()
	} else if err == nil {
		delete(r.failed, address)
	}
}

// unavailable reports whether err means that an agent cannot serve requests: the agent was not
// reached, has no leader, or did not respond like a Consul agent. The same request may succeed at
// another agent, or later.
func unavailable(err error) bool {
	var request *url.Error
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	return Electing(err) ||
		(errors.As(err, &request) || errors.As(err, &syntax) || errors.As(err, &mismatch)) && !errors.Is(err, context.Canceled)
}

// Electing reports whether err is a response of a Consul that is up but cannot serve requests now,
// for example because its servers elect a leader. Such responses have a 5xx status or 429.
func Electing(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && (status.Code >= http.StatusInternalServerError || status.Code == http.StatusTooManyRequests)
}

// agentErrors has one error for each agent that failed.
type agentErrors []agentError

type agentError struct {
	address string
	err     error
}

func (e agentErrors) Error() string {
	if len(e) == 1 {
		return e[0].err.Error()
	}
	var texts []string
	for _, a := range e {
		texts = append(texts, fmt.Sprintf("consul at %s: %v", hostPort(a.address), a.err))
	}
	return strings.Join(texts, "; ")
}

func (e agentErrors) Unwrap() []error {
	var all []error
	for _, a := range e {
		all = append(all, a.err)
	}
	return all
}

// denied turns Consul's 403 into an ErrDenied that says what to do. It returns other errors
// unchanged.
func (r *consulRegistry) denied(err error) error {
	if status := (api.StatusError{}); errors.As(err, &status) && status.Code == http.StatusForbidden {
		why := strings.TrimSuffix(strings.TrimPrefix(status.Body, "Permission denied: "), ".")
		remedy := "set CONSUL_HTTP_TOKEN to a token that allows this"
		if r.token != nil {
			remedy = fmt.Sprintf("put a token that allows this into %s (CONSUL_HTTP_TOKEN_FILE)", r.token.path)
		}
		return fmt.Errorf("%w by Consul: %s; %s", ErrDenied, why, remedy)
	}
	return err
}
