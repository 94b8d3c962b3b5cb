package consul

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/micro/go-micro/registry"
)

// Explain wraps err, the error of a request to r. If r is a Consul registry, the new error names
// each agent that was tried, and says what to do. For other registries, the new error names the
// registry with the text of Place.
func Explain(r registry.Registry, err error) error {
	if r.String() != "consul" {
		return fmt.Errorf("cannot ask %s: %w", Place(r), err)
	}
	var failed agentErrors
	if !errors.As(err, &failed) {
		failed = agentErrors{{inUse(r), err}}
	}
	var explained error
	remedy := `start one with "consul agent -dev", name another with --registry_address, or use --registry=mdns`
	for _, agent := range failed {
		agent.address = hostPort(agent.address)
		err, missing := explain(agent)
		if !missing {
			remedy = "see its log, or name another agent with --registry_address"
		}
		if explained != nil {
			err = fmt.Errorf("%w; %w", explained, err)
		}
		explained = err
	}
	if errors.Is(err, ErrDenied) || errors.Is(err, errOtherAgent) {
		return explained // this error already has a remedy
	}
	return fmt.Errorf("%w; %s", explained, remedy)
}

// explain returns the error of one agent with the agent's address. missing reports whether the
// connection to the address failed.
func explain(agent agentError) (explained error, missing bool) {
	err, address := agent.err, agent.address
	var request *url.Error
	if errors.As(err, &request) && !errors.Is(err, ErrDenied) {
		err = request.Err // leaves out the URL; the message has the address
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("no Consul agent at %s: %w", address, err), true
	}
	return fmt.Errorf("cannot ask consul at %s: %w", address, err), false
}

// Place returns text that names a registry in errors: "consul at 127.0.0.1:8500", or "mdns". If
// there are several agents, the text has the address of the agent in use.
func Place(r registry.Registry) string {
	if len(Addresses(r)) > 0 {
		return r.String() + " at " + inUse(r)
	}
	return r.String()
}

// inUse returns the address of the agent that r tries first. If r is not from NewRegistry, inUse
// returns the first address of r. r must have an address.
func inUse(r registry.Registry) string {
	if r, ok := r.(*consulRegistry); ok {
		return hostPort(r.agents()[0])
	}
	return Addresses(r)[0]
}
