// Package hostport checks addresses that users give.
package hostport

import (
	"fmt"
	"net"
	"strconv"
)

// Check returns an error if addr is not host:port with a port from 1 to 65535.
// The host may be empty, and is not looked up.
func Check(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return nil
}
