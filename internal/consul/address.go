package consul

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/internal/hostport"
)

// DefaultAddress is the address of an agent on this host.
const DefaultAddress = "127.0.0.1:8500"

// defaultPort is the port of an address that has no port.
const defaultPort = "8500"

// ParseAddresses returns the addresses in list, a comma-separated list of agents' addresses. It
// removes spaces around addresses, empty addresses and repeated addresses. It returns an error if
// list has no address, or has an address that CheckAddress rejects.
func ParseAddresses(list string) ([]string, error) {
	addrs := trimAddresses(strings.Split(list, ","))
	if len(addrs) == 0 {
		return nil, fmt.Errorf("is %q; want host:port", list)
	}
	for _, addr := range addrs {
		if err := CheckAddress(addr); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// CheckAddress returns an error if addr is not a valid address of an agent. An address is
// host:port, or host; the default port is 8500. The scheme http:// or https:// is optional. An
// address can also be unix:// and the path of a socket. The error contains no password.
func CheckAddress(addr string) error {
	if strings.Contains(addr, "@") {
		return errors.New("has a user or password in it; want host:port, and those in CONSUL_HTTP_AUTH")
	}
	scheme, host, ok := strings.Cut(addr, "://")
	switch {
	case !ok:
		host = addr
	case scheme == "unix" && host != "":
		return nil
	case scheme != "http" && scheme != "https" || host == "":
		return fmt.Errorf("is %s; want host:port", addr)
	}
	if host == "" {
		return errors.New("is empty; want host:port")
	}
	if strings.Contains(host, "/") {
		return fmt.Errorf("is %s; want host:port without a path", addr)
	}
	name, _, err := net.SplitHostPort(withPort(host))
	if strings.Contains(host, "[") != strings.Contains(host, "]") {
		err = errors.New("its brackets do not match")
	}
	if err == nil {
		err = hostport.Check(withPort(host))
	}
	if err == nil && name != "" {
		err = checkHost(name)
	}
	if err != nil {
		return fmt.Errorf("is %s: %w; want host:port", addr, err)
	}
	return nil
}

// checkHost returns an error unless host is an IP address or a DNS name.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	foreign := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, foreign) {
		return fmt.Errorf("%q is neither an IP address nor a host name", host[:min(len(host), 253)])
	}
	return nil
}

// trimAddresses removes the spaces around each address, and removes empty and repeated addresses.
func trimAddresses(addrs []string) []string {
	var trimmed []string
	for _, addr := range addrs {
		if addr = strings.TrimSpace(addr); addr != "" && !slices.Contains(trimmed, addr) {
			trimmed = append(trimmed, addr)
		}
	}
	return trimmed
}

// Addresses returns the addresses of r. If r is from NewRegistry, each address is host:port or the
// path of a socket. For mDNS and go-micro's memory registry, which have no address, Addresses
// returns nil.
func Addresses(r registry.Registry) []string {
	switch r.String() {
	case "mdns", "memory": // both ignore addresses
		return nil
	case "consul":
		var addrs []string
		for _, addr := range r.Options().Addrs {
			addrs = append(addrs, hostPort(addr))
		}
		return addrs
	}
	return r.Options().Addrs
}

// hostPort returns the host:port of an agent's address, or the path of its socket.
func hostPort(addr string) string {
	addr = withPort(addr)
	if _, after, ok := strings.Cut(addr, "://"); ok {
		return after
	}
	return addr
}

// withPort adds the default port to an address without a port. It does not change the address of a
// socket.
func withPort(addr string) string {
	scheme, host, ok := strings.Cut(addr, "://")
	if !ok {
		scheme, host = "", addr
	}
	if scheme == "unix" {
		return addr
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
	}
	if ok {
		host = scheme + "://" + host
	}
	return host
}

// bracket adds the brackets that go-micro leaves out of IPv6 addresses: for fd00::2:8080, bracket
// returns [fd00::2]:8080. bracket returns other addresses unchanged.
func bracket(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasPrefix(address, "[") || !strings.Contains(address[:i], ":") {
		return address
	}
	return net.JoinHostPort(address[:i], address[i+1:])
}
