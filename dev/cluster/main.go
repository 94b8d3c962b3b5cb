// Command cluster starts the pair on a cluster of network namespaces, and keeps the cluster
// running. "make cluster" runs the command. The command needs root, Linux, and the Consul and
// Jaeger that "make tools" builds.
//
// The command prints the hosts' addresses, the URLs of the UIs, and commands that break something.
// It runs until it is interrupted. It then stops all processes and deletes the cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/cluster"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// patience is the maximum time until Consul, Jaeger and the servers are ready.
const patience = 2 * time.Minute

const service = "go.micro.srv.basis"

func main() {
	os.Exit(run())
}

func run() int {
	servers := flag.Int("servers", 3, "hosts for servers, 1 to 100")
	clients := flag.Int("clients", 2, "hosts for clients, 1 to 100")
	each := flag.Int("each", 2, "servers on each of their hosts")
	rate := flag.Float64("rate", 10, "calls a second of each client; 0: no limit")
	flag.Parse()
	if *servers < 1 || *servers > 100 || *clients < 1 || *clients > 100 || *each < 1 || flag.NArg() > 0 {
		flag.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := keep(ctx, *servers, *clients, *each, *rate)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1
	}
	return 0
}

// keep starts the cluster and keeps it running until ctx is done.
func keep(ctx context.Context, servers, clients, each int, rate float64) error {
	if err := cluster.Usable(); err != nil {
		return err
	}
	consul, jaeger, err := binaries.FindAll()
	if err != nil {
		return fmt.Errorf("%w; \"make tools\" builds the missing tools", err)
	}
	dir, err := os.MkdirTemp("", "basis-cluster-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println("Building srv and client ...")
	root, err := project.Root()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./srv", "./client")
	build.Dir = root
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the pair: %w", err)
	}

	fmt.Println("Starting three Consul servers, an agent on each other host, Jaeger, and the pair ...")
	starting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := cluster.New(dir, consul, jaeger, servers, clients)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Start(starting); err != nil {
		return err
	}
	for _, h := range c.Hosts("srv-") {
		for i := range each {
			if _, err := h.Start(fmt.Sprintf("srv-%d", i+1), c.Environ(h), filepath.Join(dir, "srv")); err != nil {
				return err
			}
		}
	}
	if _, err := c.Nodes(starting, service, servers*each); err != nil {
		return err
	}
	for _, h := range c.Hosts("client-") {
		env := c.Environ(h, "BASIS_REQUESTS=0", "BASIS_VERBOSE=true", "BASIS_WAIT=1m", "BASIS_CONCURRENCY=4",
			"BASIS_HYSTRIX_MAX_CONCURRENT=50", "BASIS_HYSTRIX_ERROR_PERCENT=50", "BASIS_HYSTRIX_VOLUME=20", fmt.Sprintf("BASIS_RATE_LIMIT=%g", rate))
		if _, err := h.Start("client", env, filepath.Join(dir, "client")); err != nil {
			return err
		}
	}
	tell(c)
	<-ctx.Done()
	fmt.Println("\nStopping everything.")
	return nil
}

// tell prints the addresses of the cluster, and commands that break it.
func tell(c *cluster.Cluster) {
	fmt.Println()
	for _, h := range c.Hosts("") {
		fmt.Printf("%-10s %-15s namespace %-20s logs %s\n", h.Name, h.Addr, h.Namespace(), h.Dir)
	}
	srv, client, first := c.Host("srv-1"), c.Host("client-1"), c.Host("consul-1")
	fmt.Printf(`
Consul  %s/ui/dc1/services/%s
Jaeger  %s/search?service=go.micro.client.basis

Everything keeps running until Ctrl-C. In another terminal, as root:

Follow the calls of one client:
  tail -f %s/client.log
Run something on a host, such as one more client, or a shell:
  ip netns exec %s %s/client --rate_limit=0 --requests=100
Kill all servers on a host, or one Consul server:
  ip netns pids %s | xargs ps -o pid=,comm= -p | awk '$2 == "srv" { print $1 }' | xargs kill -9
  ip netns pids %s | xargs kill -9
Unplug a host, so that its packets are lost and nothing refuses them; and plug it in again:
  ip -n %s link set srv-1 nomaster
  ip -n %[9]s link set srv-1 master main
Lose 5%% of the packets that a host receives; and no more:
  ip netns exec %[10]s iptables -A INPUT -i eth0 -m statistic --mode random --probability 0.05 -j DROP
  ip netns exec %[10]s iptables -F INPUT
Split the network: two hosts on a switch of their own; and whole again:
  for host in srv-1 client-1; do ip -n %[9]s link set $host master other; done
  for host in srv-1 client-1; do ip -n %[9]s link set $host master main; done
`, c.ConsulUI(first), service, c.JaegerUI(), client.Dir, client.Namespace(), filepath.Dir(client.Dir),
		srv.Namespace(), first.Namespace(), c.Switch(), srv.Namespace())
}
