package registration

import (
	"fmt"

	"github.com/micro/go-micro/registry"
)

// exclusiveRegistry registers a node only if no other live server has the node's ID.
//
// IDs that are not unique come from a --server_id or MICRO_SERVER_ID that several servers
// share. Consul keeps one registration per ID, so each server would replace the other's
// and then renew it: callers would find one of the two, and neither would know.
//
// The first server keeps the ID. A second one waits, and does not take the ID over: a
// server that is started by mistake must not take the calls of one that works. A server
// that comes back after a crash, at another port and with its old ID, waits for its own
// last registration, which ends with its TTL. A server that comes back at its old address
// does not wait. Two servers that start at the same moment may both register; the one
// whose registration was replaced finds that out at its next renewal.
type exclusiveRegistry struct {
	registry.Registry
	holder func(id string) (address string, err error)
	own    string // the address that was last registered; Register and Deregister have one caller at a time
}

func (e *exclusiveRegistry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	for _, node := range s.Nodes {
		other, err := e.other(node)
		if err != nil {
			return err
		}
		if other != "" {
			return &idTakenError{id: node.Id, own: node.Address, other: other}
		}
		e.own = node.Address
	}
	return e.Registry.Register(s, opts...)
}

// Deregister leaves the registration of another server alone.
func (e *exclusiveRegistry) Deregister(s *registry.Service) error {
	if e.own == "" {
		return nil // Register has sent nothing
	}
	for _, node := range s.Nodes {
		if other, err := e.other(node); err == nil && other != "" {
			return nil
		}
	}
	return e.Registry.Deregister(s)
}

// other returns the address of another live server that is registered with the node's ID,
// and "" without one.
func (e *exclusiveRegistry) other(node *registry.Node) (string, error) {
	address, err := e.holder(node.Id)
	if address == node.Address || address == e.own { // e.own may be from before the network changed
		return "", err
	}
	return address, err
}

// idTakenError says that another live server is registered with a node's ID.
type idTakenError struct{ id, own, other string }

func (e *idTakenError) Error() string {
	return fmt.Sprintf("another server is registered as %s, at %s, and its check passes; this one, at %s, would replace it. "+
		"Give each server an ID of its own with --server_id or MICRO_SERVER_ID, or set neither. "+
		"If the other server has crashed, its registration ends with its TTL", e.id, e.other, e.own)
}
