// Package modern implements the Basis service and its client with maintained libraries: grpc-go
// with a resolver for Consul and grpc-go's round robin, golang.org/x/time/rate, gobreaker and
// OpenTelemetry. The programs are in the folders client and server. This client can call srv, and
// the pair's client can call this server.
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

// Discovery is a resolver.Builder for targets like "consul:///service". It resolves a service to
// the nodes in Consul whose checks pass, and updates the list of nodes after each change. If Consul
// is unavailable, the last known nodes stay in use.
type Discovery struct{ Consul *api.Client }

// Scheme returns the scheme of the targets.
func (Discovery) Scheme() string { return "consul" }

// Build starts a watch of the target's service.
func (d Discovery) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	go d.watch(ctx, target.Endpoint(), cc)
	return watcher(cancel), nil
}

// watch passes the nodes of service to cc, until ctx is done. The first query, and the first query
// after an error, returns at once. Every other query blocks in Consul until the nodes change, for
// at most about 5 minutes.
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
			state.Addresses = append(state.Addresses, resolver.Address{Addr: address}) // gRPC derives Endpoints from Addresses
		}
		_ = cc.UpdateState(state) // fails if there are no nodes; calls then fail too
	}
}

// watcher is a resolver.Resolver. Its value is the function that ends the watch.
type watcher context.CancelFunc

// ResolveNow does nothing, because the watch gets changes at once.
func (watcher) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch.
func (w watcher) Close() { w() }

// Register registers a node of service in Consul. The address is the node's host:port. Consul
// checks the node every 10 s with gRPC's health service, and removes a node whose check has failed
// for a minute. Register returns a function that deregisters the node.
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
