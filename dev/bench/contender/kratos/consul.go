package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/go-kratos/kratos/v2/registry"
	"github.com/hashicorp/consul/api"
)

// discovery is a registry.Discovery that finds the nodes in Consul whose checks pass. kratos has
// such a type in its module github.com/go-kratos/kratos/contrib/registry/consul/v2, but this module
// could not be fetched.
type discovery struct{ consul *api.Client }

func (d discovery) GetService(ctx context.Context, name string) ([]*registry.ServiceInstance, error) {
	w := &watcher{consul: d.consul, name: name, ctx: ctx}
	return w.Next()
}

func (d discovery) Watch(ctx context.Context, name string) (registry.Watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	return &watcher{consul: d.consul, name: name, ctx: ctx, cancel: cancel}, nil
}

type watcher struct {
	consul *api.Client
	name   string
	ctx    context.Context
	cancel context.CancelFunc
	index  uint64 // index of Consul's last response
}

// Next waits until the nodes have changed, or until Consul ends the wait, and returns the nodes.
// The first call returns at once.
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	query := &api.QueryOptions{WaitIndex: w.index}
	nodes, meta, err := w.consul.Health().Service(w.name, "", true, query.WithContext(w.ctx))
	if err != nil {
		w.index = 0
		return nil, fmt.Errorf("asking Consul for %s: %w", w.name, err)
	}
	w.index = meta.LastIndex
	var instances []*registry.ServiceInstance
	for _, n := range nodes {
		instances = append(instances, &registry.ServiceInstance{
			ID: n.Service.ID, Name: w.name,
			Endpoints: []string{"grpc://" + net.JoinHostPort(n.Service.Address, strconv.Itoa(n.Service.Port))},
		})
	}
	return instances, nil
}

func (w *watcher) Stop() error {
	w.cancel()
	return nil
}
