// Package hostport validates addresses of the form host:port.
package hostport

import (
	"fmt"
	"net"
	"strconv"
)

// Check returns an error if addr is not host:port with a port from 1 to 65535. The host may be
// empty. Check does not look up the host.
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
