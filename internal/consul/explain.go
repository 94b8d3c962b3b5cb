package consul

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/micro/go-micro/registry"
)

// Explain says in an error's place why r could not be asked, and what to do.
func Explain(r registry.Registry, err error) error {
	if r.String() != "consul" || errors.Is(err, ErrDenied) {
		return fmt.Errorf("cannot ask %s: %w", Place(r), err)
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, which Place names in short
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf(`no Consul agent at %s: %w; start one with "consul agent -dev", name another with --registry_address, or use --registry=mdns`,
			Address(r), err)
	}
	return fmt.Errorf("cannot ask %s: %w; see its log, or name another agent with --registry_address", Place(r), err)
}

// Place names a registry in errors: "consul at 127.0.0.1:8500", or "mdns".
func Place(r registry.Registry) string {
	if addr := Address(r); addr != "" {
		return r.String() + " at " + addr
	}
	return r.String()
}
