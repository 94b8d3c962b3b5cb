package backend

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are taken from below those that systems give to outgoing connections
// (from 32768 on Linux), so that none is lost between the look and the use.
const (
	firstPort = 10_000
	lastPort  = 30_000
)

var ports struct {
	sync.Mutex
	taken map[int]bool // by this process, also if not in use yet
}

// FreePorts returns n TCP ports of 127.0.0.1 that nothing listens on.
func FreePorts(n int) ([]int, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.taken == nil {
		ports.taken = map[int]bool{}
	}
	var free []int
	for range 100 * n {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if ports.taken[port] || !isFree(port) {
			continue
		}
		ports.taken[port] = true
		if free = append(free, port); len(free) == n {
			return free, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d", n, firstPort, lastPort)
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", local(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func isFreeUDP(port int) bool {
	c, err := net.ListenPacket("udp", local(port))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// local returns the address of a port on this machine.
func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
