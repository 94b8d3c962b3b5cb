package backend

import (
	"net"
	"slices"
	"strconv"

	"github.com/hashicorp/consul/sdk/freeport"
)

// FreePorts returns n ports of 127.0.0.1 that nothing listens on, over TCP or UDP.
//
// FreePorts takes the ports from Consul's package freeport. freeport reserves a block of ports for
// each process. If freeport can read the range of the ports for outgoing connections, the blocks
// are below this range. FreePorts never gives a port back to freeport. A script can stop Consul and
// start it again on the same port, and meanwhile no other program must get this port.
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

// orFree replaces each port that is 0, or that something listens on, by a free port. It uses
// freeport only if it needs a port, because freeport logs to stderr, and the demo shows stderr.
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

// isFree reports whether nothing listens on a port of 127.0.0.1, over TCP or UDP.
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

// local returns the host:port of a port of 127.0.0.1.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
