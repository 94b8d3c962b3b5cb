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

// Holder returns the host:port of the node that has the ID id at the agent.
//
// Holder returns "" if the agent has no such node, if the node's check does not pass, or if r is
// not from NewRegistry. Holder also returns "" if the token has no permission to see the node. Then
// the token also has no permission to register the node, and Register returns an error that names
// this permission.
//
// Holder returns an error if no agent responds.
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
		if errors.As(err, new(api.StatusError)) { // no such node, or its check does not pass
			return nil
		}
		return err
	})
	return address, err
}

// Leftover returns text about a node that could not be deregistered: how long callers still find
// the node, and how to remove it. ttl is the TTL of the node's registration.
func Leftover(r registry.Registry, id string, ttl time.Duration) string {
	if r.String() != "consul" {
		return id + " stays registered until its TTL is over"
	}
	// After the TTL, the node's check fails. go-micro asks Consul to remove the node when the check
	// has failed for 65 s, or for ttl + 5 s if ttl is longer than 60 s. Consul looks for such nodes
	// every 30 s. The agent uses the node's token to report the result of the check to Consul's
	// servers. If this token was deleted, the agent cannot report that the check fails, and Consul
	// lists the node as passing until the node is removed.
	removed := ttl + max(65*time.Second, ttl+5*time.Second) + 30*time.Second
	return fmt.Sprintf(`%s stays in Consul: callers find it until its TTL of %v is over or, if its token was deleted, for up to %v; "consul services deregister -id=%s" at its agent removes it at once`,
		id, ttl, removed, id)
}

// errOtherAgent reports that an agent does not know the check of a node that was registered a
// moment before: another agent has registered the node.
var errOtherAgent = errors.New("another agent answered: several agents are behind this address, and each knows only the nodes that it registered; name the agent of this host with --registry_address or CONSUL_HTTP_ADDR")

// otherAgent takes the error of go-micro's Register. If the error says that the agent does not know
// the node's check, otherAgent returns errOtherAgent. It returns other errors unchanged. Register
// sends two requests: the first request adds the check, and the second request reports that the
// check passes. If another agent gets the second request, this agent does not know the check.
func otherAgent(err error) error {
	var status api.StatusError
	if errors.As(err, &status) && strings.HasPrefix(status.Body, "Unknown check") {
		return errOtherAgent
	}
	return err
}
