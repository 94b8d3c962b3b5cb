package backend

import (
	"net"
	"slices"
	"strconv"

	"github.com/hashicorp/consul/sdk/freeport"
)

// FreePorts returns n ports of 127.0.0.1 that nothing listens on, over TCP or UDP.
// Each process takes its ports from a block that no other process that asks freeport
// has, and that is below those that systems give to outgoing connections. No port is
// given back, since a script may start Consul again on the port that it had.
func FreePorts(n int) ([]int, error) {
	var free []int
	for len(free) < n {
		ports, err := freeport.Take(n - len(free))
		if err != nil {
			return nil, err
		}
		free = append(free, slices.DeleteFunc(ports, func(port int) bool { return !isFree(port) })...)
	}
	return free, nil
}

// orFree replaces each port that is 0, or that something listens on, by a free one. It
// asks freeport only where it has to: freeport logs to stderr, and the demo shows that.
func orFree(ports ...*int) error {
	wanting := slices.DeleteFunc(ports, func(port *int) bool { return *port != 0 && isFree(*port) })
	free, err := FreePorts(len(wanting))
	if err != nil {
		return err
	}
	for i, port := range wanting {
		*port = free[i]
	}
	return nil
}

// isFree tells whether nothing listens on a port, over TCP or UDP.
func isFree(port int) bool {
	l, err := net.Listen("tcp", local(port))
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", local(port))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// local returns the address of a port on this machine.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
