package registration

import (
	"fmt"

	"github.com/micro/go-micro/registry"
)

// exclusiveRegistry registers a node only if no other live server has the node's ID.
//
// Several servers have the same ID if they share a --server_id or MICRO_SERVER_ID. Consul keeps
// one registration per ID, so each server would replace the other server's registration.
// Callers would find only one of the servers, and neither server would report an error.
//
// The first server keeps the ID. A second server waits for the ID: a server that is started by
// mistake must not take the calls of a working server. A server that restarts after a crash on
// another port with its old ID waits until its old registration expires (TTL). A server that
// restarts at its old address does not wait. Two servers that start at the same moment may both
// register; the server whose registration was replaced detects this at its next renewal.
type exclusiveRegistry struct {
	registry.Registry
	holder func(id string) (address string, err error)
	own    string // the last registered address; Register and Deregister have one caller at a time
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

// Deregister deregisters the service's nodes, unless another live server has the ID of a node.
func (e *exclusiveRegistry) Deregister(s *registry.Service) error {
	if e.own == "" {
		return nil // Register has sent no registration
	}
	for _, node := range s.Nodes {
		if other, err := e.other(node); err == nil && other != "" {
			return nil
		}
	}
	return e.Registry.Deregister(s)
}

// other returns the address of another live server that is registered with the node's ID, or ""
// if there is none.
func (e *exclusiveRegistry) other(node *registry.Node) (string, error) {
	address, err := e.holder(node.Id)
	if address == node.Address || address == e.own { // the node's address may have changed since e.own
		return "", err
	}
	return address, err
}

// idTakenError reports that another live server is registered with a node's ID.
type idTakenError struct{ id, own, other string }

func (e *idTakenError) Error() string {
	return fmt.Sprintf("another server is registered as %s, at %s, and its check passes; this one, at %s, would replace it. "+
		"Give each server an ID of its own with --server_id or MICRO_SERVER_ID, or set neither. "+
		"If the other server has crashed, its registration ends with its TTL", e.id, e.other, e.own)
}
