// Package cluster creates a cluster of hosts on one machine. Real processes run on the hosts, and
// tests can break the network between the hosts.
//
// A host is a Linux network namespace with its own address. A switch connects all hosts and this
// machine. The switch is a bridge in another namespace. The hosts reach one another and this
// machine, but no other network. The package needs root and the commands in Commands.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/internal/backend"
)

// Commands are the programs that a Network needs on PATH. On Debian and Ubuntu, the packages
// iproute2, iptables and util-linux have these programs.
var Commands = []string{"ip", "iptables", "nsenter", "setpriv"}

// These constants are the names of the two switches. Hosts on different switches do not reach one
// another. This machine is on the main switch.
const (
	mainSwitch  = "main"
	otherSwitch = "other"
)

// maxNetworks is the maximum number of networks on this machine at one time.
const maxNetworks = 200

// lastHost is the last byte of this machine's address in each network.
const lastHost = 254

// killTimeout is how long killed processes may take to end.
const killTimeout = 10 * time.Second

// errClosed is the error of calls to a closed network.
var errClosed = errors.New("the network is closed")

// Network is a set of hosts, and the two switches that connect the hosts.
type Network struct {
	name  string       // the prefix of the names of all namespaces, and the name of this machine's link
	dir   string       // the directory of the hosts' files
	lease net.Listener // listens while the network exists, so that the name has one owner
	hosts []*Host

	mu     sync.Mutex // held while namespaces or processes are created or deleted
	closed bool
}

// Host is a host of a Network.
type Host struct {
	Name string // for example srv-1
	Addr string // an IPv4 address
	Dir  string // the directory of the files of the host's processes

	network   *Network
	processes []*backend.Process // all started processes; Network.mu guards the slice
}

// Usable returns nil if this process is root and has the commands in Commands. Otherwise, it
// returns an error that names the missing commands, or says that root is required.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces take root")
	}
	return find("iproute2, iptables and util-linux", Commands...)
}

// find returns an error if one of the commands is not on PATH. The error names the packages to
// install.
func find(packages string, commands ...string) error {
	for _, command := range commands {
		if _, err := exec.LookPath(command); err != nil {
			return fmt.Errorf("%w; install %s", err, packages)
		}
	}
	return nil
}

// NewNetwork creates a network with a host for each name. In dir, it creates a directory for each
// host. A name may have at most 15 bytes, because it is also the name of a network interface. Close
// deletes the network. If a process ends without Close, its network stays, until a later call of
// NewNetwork deletes this network.
//
// Each network has a /24 in 10.213.0.0/16. NewNetwork skips a /24 to which this machine already has
// a route.
func NewNetwork(dir string, names ...string) (*Network, error) {
	if err := Usable(); err != nil {
		return nil, err
	}
	for id := range maxNetworks {
		// Only one process can listen on an abstract socket, and the kernel closes the socket when
		// the process exits.
		lease, err := net.Listen("unix", fmt.Sprintf("@basis-cluster-%d", id))
		if err != nil {
			continue
		}
		n := &Network{name: fmt.Sprintf("basis-%d", id), dir: dir, lease: lease}
		n.clear()
		subnet := fmt.Sprintf("10.213.%d.", id)
		if routes, err := output("ip", "-4", "route", "show", "root", subnet+"0/24"); err != nil || routes != "" {
			lease.Close()
			continue
		}
		if err := n.create(subnet, names); err != nil {
			n.Close()
			return nil, fmt.Errorf("creating network %s: %w", n.name, err)
		}
		return n, nil
	}
	return nil, fmt.Errorf("there are %d networks on this machine already, or routes to all of 10.213.0.0/16; see \"ip netns\" and \"ip route\"", maxNetworks)
}

// create creates the namespaces and the links.
func (n *Network) create(subnet string, names []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	hub := n.namespace("switch")
	last := fmt.Sprintf("%s%d", subnet, lastHost)
	err := run(
		[]string{"ip", "netns", "add", hub},
		[]string{"ip", "-n", hub, "link", "add", mainSwitch, "up", "type", "bridge"},
		[]string{"ip", "-n", hub, "link", "add", otherSwitch, "up", "type", "bridge"},
		[]string{"ip", "link", "add", n.name, "type", "veth", "peer", "name", "uplink", "netns", hub},
		[]string{"ip", "-n", hub, "link", "set", "uplink", "up", "master", mainSwitch},
		[]string{"ip", "addr", "add", last + "/24", "dev", n.name},
		[]string{"ip", "link", "set", n.name, "up"},
	)
	for i, name := range names {
		if err != nil {
			return err
		}
		h := &Host{Name: name, Addr: fmt.Sprintf("%s%d", subnet, i+1), Dir: filepath.Join(n.dir, name), network: n}
		n.hosts = append(n.hosts, h)
		err = errors.Join(os.MkdirAll(h.Dir, 0o755), run(
			[]string{"ip", "netns", "add", h.Namespace()},
			[]string{"ip", "link", "add", "eth0", "netns", h.Namespace(), "type", "veth", "peer", "name", name, "netns", hub},
			[]string{"ip", "-n", hub, "link", "set", "dev", name, "up", "master", mainSwitch},
			[]string{"ip", "-n", h.Namespace(), "link", "set", "lo", "up"},
			[]string{"ip", "-n", h.Namespace(), "addr", "add", h.Addr + "/24", "dev", "eth0"},
			[]string{"ip", "-n", h.Namespace(), "link", "set", "eth0", "up"},
			// Each host needs a default route, because programs advertise the source address of
			// this route.
			[]string{"ip", "-n", h.Namespace(), "route", "add", "default", "via", last},
		))
	}
	return err
}

// namespace returns the name of the network namespace for a host, or for the switch.
func (n *Network) namespace(name string) string { return n.name + "-" + name }

// Host returns the host with this name, or nil.
func (n *Network) Host(name string) *Host {
	for _, h := range n.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Hosts returns all hosts whose names begin with prefix.
func (n *Network) Hosts(prefix string) []*Host {
	return slices.DeleteFunc(slices.Clone(n.hosts), func(h *Host) bool { return !strings.HasPrefix(h.Name, prefix) })
}

// Close kills all processes on the hosts and deletes the network. Any goroutine may call Close at
// any time, also more than once.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed = true
	for _, h := range n.hosts {
		h.kill()
	}
	n.clear()
	n.lease.Close()
}

// clear deletes all namespaces and the link of n, and kills the processes in the namespaces.
func (n *Network) clear() {
	names, _ := os.ReadDir("/run/netns") // an error means that there are no namespaces
	for _, entry := range names {
		if !strings.HasPrefix(entry.Name(), n.name+"-") {
			continue
		}
		pids, _ := output("ip", "netns", "pids", entry.Name())
		for _, field := range strings.Fields(pids) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = run([]string{"ip", "netns", "del", entry.Name()})
	}
	if _, err := net.InterfaceByName(n.name); err == nil {
		_ = run([]string{"ip", "link", "del", n.name})
	}
	removeCgroups(n.name)
	// ip mounts /run/netns when it creates the first namespace. If no namespace is left, unmount
	// /run/netns.
	if names, err := os.ReadDir("/run/netns"); err == nil && len(names) == 0 {
		_ = syscall.Unmount("/run/netns", 0)
	}
}

// Split moves hosts to the second switch. These hosts still reach one another. They no longer reach
// this machine and the hosts on the main switch: packets between the two switches are lost without
// an error.
func (n *Network) Split(hosts ...*Host) error {
	// One command moves all hosts: on a busy machine, a command for each host takes too long.
	var batch strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&batch, "link set dev %s master %s\n", h.Name, otherSwitch)
	}
	ip := exec.Command("ip", "-n", n.Switch(), "-batch", "-")
	ip.Stdin = strings.NewReader(batch.String())
	if out, err := ip.CombinedOutput(); err != nil {
		return fmt.Errorf("moving hosts to another switch: %w: %s", err, out)
	}
	return nil
}

// Heal undoes Split, Cut and Lose. It does not undo PowerOff.
func (n *Network) Heal() error {
	for _, h := range n.hosts {
		err := errors.Join(h.plug("master", mainSwitch), run(
			[]string{"ip", "netns", "exec", h.Namespace(), "iptables", "-w", "-F", "INPUT"}))
		if err != nil {
			return err
		}
	}
	return nil
}

// Namespace returns the name of the host's network namespace, for "ip netns exec".
func (h *Host) Namespace() string { return h.network.namespace(h.Name) }

// Switch returns the name of the namespace of the switches. The namespace has the bridges "main"
// and "other", and a link for each host. The name of the link is the host's name.
func (n *Network) Switch() string { return n.namespace("switch") }

// Start starts a program on the host; see backend.Start. The program's log is NAME.log in h.Dir. If
// the process that called Start ends, the kernel kills the program.
func (h *Host) Start(name string, env []string, path string, args ...string) (*backend.Process, error) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	if h.network.closed {
		return nil, fmt.Errorf("starting %s on %s: %w", name, h.Name, errClosed)
	}
	// nsenter and setpriv replace themselves with the program, so the process ID of p is the ID of
	// the program. "ip netns exec" would hide the control groups, which a Docker engine needs.
	args = append([]string{"--net=/run/netns/" + h.Namespace(), "setpriv", "--pdeathsig=KILL", path}, args...)
	p, err := backend.Start(name, filepath.Join(h.Dir, name+".log"), env, "nsenter", args...)
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	h.processes = append(h.processes, p)
	return p, nil
}

// kill kills all processes on the host. Network.mu must be held.
func (h *Host) kill() {
	for _, p := range h.processes { // kill all processes before waiting for the first
		if !p.Ended() {
			_ = syscall.Kill(child(p.Pid()), syscall.SIGKILL)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	for _, p := range h.processes {
		_ = p.Wait(ctx)
	}
	h.processes = nil
}

// PowerOff ends the host as a power failure does. It takes the host's link down first, so that no
// peer learns that a connection ended. It then kills all processes on the host.
func (h *Host) PowerOff() error {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	if err := run([]string{"ip", "-n", h.network.Switch(), "link", "set", "dev", h.Name, "down"}); err != nil {
		return err
	}
	h.kill()
	return nil
}

// Cut unplugs the host from the switch. All packets from and to the host are lost without an error.
// The host's own link stays up.
func (h *Host) Cut() error { return h.plug("nomaster") }

func (h *Host) plug(where ...string) error {
	return run(append([]string{"ip", "-n", h.network.Switch(), "link", "set", "dev", h.Name}, where...))
}

// Lose drops a share of the packets to the host, and of the packets from the host to other hosts.
// percent is this share, from 0 to 100. The packets are chosen at random.
func (h *Host) Lose(percent int) error {
	for _, other := range h.network.hosts {
		match := []string{"-s", h.Addr}
		if other == h {
			match = []string{"-i", "eth0"}
		}
		if err := other.lose(percent, match...); err != nil {
			return err
		}
	}
	return nil
}

// Lose drops a share of the packets to all hosts. percent is this share, from 0 to 100. The packets
// are chosen at random.
func (n *Network) Lose(percent int) error {
	for _, h := range n.hosts {
		if err := h.lose(percent, "-i", "eth0"); err != nil {
			return err
		}
	}
	return nil
}

// lose drops a share of the packets that the host receives. It drops only packets that the iptables
// arguments in match select. percent is the share of these packets, from 0 to 100. The packets are
// chosen at random.
func (h *Host) lose(percent int, match ...string) error {
	args := append([]string{"ip", "netns", "exec", h.Namespace(), "iptables", "-w", "-A", "INPUT"}, match...)
	return run(append(args, "-m", "statistic", "--mode", "random", "--probability", fmt.Sprintf("%.2f", float64(percent)/100), "-j", "DROP"))
}

// run runs commands one after another, until a command fails.
func run(commands ...[]string) error {
	for _, c := range commands {
		if _, err := output(c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// output runs a command and returns its output.
func output(command string, args ...string) (string, error) {
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", command, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
