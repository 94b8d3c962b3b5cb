package registration

import (
	"fmt"

	"github.com/micro/go-micro/registry"
)

// exclusiveRegistry registers a node only if no other live server has the node's ID at the same
// agent.
//
// Several servers have the same ID if they share a --server_id or MICRO_SERVER_ID. A Consul agent
// keeps one registration per ID, so each server would replace the registration of another server at
// this agent. Callers would find only one of the servers, and no server would report an error.
//
// The first server keeps the ID. A second server waits for the ID: a server that is started by
// mistake must not take the calls of a working server. If a server crashes, and restarts with its
// old ID on another port, it waits until its old registration expires (TTL). If it restarts at its
// old address, it does not wait. If two servers start at the same moment, both may register. Then
// the second registration replaces the first, and the server that registered first detects this at
// its next renewal.
type exclusiveRegistry struct {
	registry.Registry
	holder func(id string) (address string, err error)
	// own is the address in the last registration. It needs no lock: Register and Deregister never
	// run at the same time.
	own string
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
	// e.own and node.Address differ if the node has moved since its last registration.
	if address == node.Address || address == e.own {
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
