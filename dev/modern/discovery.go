// Package modern is the Basis service and its client on libraries that are maintained:
// grpc-go with a resolver for Consul and its own round robin, golang.org/x/time/rate,
// gobreaker and OpenTelemetry. The programs are in the folders client and server. Each of
// them works with the other program of the pair.
package modern

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc/resolver"
)

// retryInterval is the time between two queries while Consul fails.
const retryInterval = time.Second

// Discovery is a resolver.Builder for targets like "consul:///service". It resolves a
// service to the nodes in Consul whose checks pass, and follows each change. While Consul
// fails, the last nodes stay.
type Discovery struct{ Consul *api.Client }

// Scheme returns the scheme of the targets.
func (Discovery) Scheme() string { return "consul" }

// Build starts to watch the target's service.
func (d Discovery) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	go d.watch(ctx, target.Endpoint(), cc)
	return watcher(cancel), nil
}

// watch reports the nodes of service to cc until ctx is done. Consul answers when they have
// changed, or after 5 minutes.
func (d Discovery) watch(ctx context.Context, service string, cc resolver.ClientConn) {
	query := new(api.QueryOptions).WithContext(ctx)
	for ctx.Err() == nil {
		nodes, meta, err := d.Consul.Health().Service(service, "", true, query)
		if err != nil {
			cc.ReportError(fmt.Errorf("asking Consul for %s: %w", service, err))
			query.WaitIndex = 0
			select {
			case <-time.After(retryInterval):
			case <-ctx.Done():
			}
			continue
		}
		query.WaitIndex = meta.LastIndex
		var state resolver.State
		for _, n := range nodes {
			address := net.JoinHostPort(n.Service.Address, strconv.Itoa(n.Service.Port))
			state.Addresses = append(state.Addresses, resolver.Address{Addr: address}) // Endpoints would be for new balancers alone
		}
		_ = cc.UpdateState(state) // fails if there are no nodes; then the calls fail, too
	}
}

// watcher ends a watch.
type watcher context.CancelFunc

// ResolveNow does nothing: Consul reports changes at once.
func (watcher) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch.
func (w watcher) Close() { w() }

// Register registers the node at address, a host:port, in Consul, which checks it by gRPC's
// health service every 10 s. It returns a function that deregisters the node.
func Register(consul *api.Client, service, address string) (deregister func() error, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	id := service + "-" + address
	err = consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: service, Address: host, Port: n,
		Check: &api.AgentServiceCheck{
			GRPC: address, Interval: "10s", Status: api.HealthPassing, DeregisterCriticalServiceAfter: "1m",
		},
	})
	if err != nil {
		return nil, fmt.Errorf("registering %s in Consul: %w", id, err)
	}
	return func() error { return consul.Agent().ServiceDeregister(id) }, nil
}
