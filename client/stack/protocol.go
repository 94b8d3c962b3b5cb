package stack

import (
	"context"

	microclient "github.com/micro/go-micro/client"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"

	"github.com/gomicroexample/basis/client/failure"
)

const (
	grpc = "grpc"
	mucp = "mucp" // go-micro's own protocol; go-micro's flags call it rpc
)

// protocol returns a call wrapper that compares the protocols of client and node. The parameter own
// is the client's protocol. If the protocols differ, the wrapper's errors name the flags to change.
// The wrapper does not send a mucp call to a gRPC server. It does send a gRPC call to a mucp
// server, because such a server responds. But the client cannot read the errors in these responses.
func protocol(own string) microclient.CallWrapper {
	return func(next microclient.CallFunc) microclient.CallFunc {
		return func(ctx context.Context, node *registry.Node, req microclient.Request, rsp any, opts microclient.CallOptions) error {
			server := node.Metadata["server"] // the name of go-micro's server implementation; "" for other servers
			if own == mucp && server == grpc {
				return errors.InternalServerError(failure.ClientID, "calling %s: the server speaks gRPC; leave out --client, or start the server with --server=rpc", node.Address)
			}
			err := next(ctx, node, req, rsp, opts)
			if e, ok := err.(*errors.Error); ok && own == grpc && server == mucp && failure.Of(e) == failure.Unreachable {
				return errors.InternalServerError(e.Id, "%s; the server has --server=rpc: use --client=rpc", e.Detail)
			}
			return err
		}
	}
}
