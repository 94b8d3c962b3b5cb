package consul

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/micro/go-micro/registry"
)

// Holder returns the host:port of the node that the agent has under an ID. It returns ""
// if the agent has none, if the node's check does not pass, or if r is not from
// NewRegistry. It also returns "" if the token may not see the node, because that token may
// not register one either, and the error of Register says what it lacks.
func Holder(r registry.Registry, id string) (address string, err error) {
	c, ok := r.(*consulRegistry)
	if !ok {
		return "", nil
	}
	err = c.try(func(agent string, last bool) error {
		address = ""
		config := c.configFor(agent, lookupTimeout(last))
		client, err := api.NewClient(&config)
		if err != nil {
			return err
		}
		var node api.AgentServiceChecksInfo
		_, err = client.Raw().Query("/v1/agent/health/service/id/"+id, &node, nil)
		if err == nil && node.Service != nil {
			address = net.JoinHostPort(strings.Trim(node.Service.Address, "[]"), strconv.Itoa(node.Service.Port))
		}
		if errors.As(err, new(api.StatusError)) { // not a node whose check passes
			return nil
		}
		return err
	})
	return address, err
}

// Leftover says how long callers find a node that could not be deregistered, and how to
// remove it. ttl is that of its registration.
func Leftover(r registry.Registry, id string, ttl time.Duration) string {
	if r.String() != "consul" {
		return id + " stays registered until its TTL is over"
	}
	// go-micro asks Consul to remove a node that long after its check has failed, and Consul
	// looks every 30 s. It lists a node whose token is gone as passing until then, because
	// the agent reports the node's check with the node's token.
	removed := ttl + max(65*time.Second, ttl+5*time.Second) + 30*time.Second
	return fmt.Sprintf(`%s stays in Consul: callers find it until its TTL of %v is over or, if its token was deleted, for up to %v; "consul services deregister -id=%s" at its agent removes it at once`,
		id, ttl, removed, id)
}

// errOtherAgent says that an agent does not know the check of a node that was registered a
// moment before.
var errOtherAgent = errors.New("another agent answered: several agents are behind this address, and each knows only the nodes that it registered; name the agent of this host with --registry_address or CONSUL_HTTP_ADDR")

// otherAgent turns an error of go-micro's Register into an errOtherAgent if that is what it
// means. Register adds a check, and then reports to the agent that the check passes.
func otherAgent(err error) error {
	var status api.StatusError
	if errors.As(err, &status) && strings.HasPrefix(status.Body, "Unknown check") {
		return errOtherAgent
	}
	return err
}
