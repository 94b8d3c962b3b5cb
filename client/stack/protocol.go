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
	mucp = "mucp" // go-micro's own protocol, which its flags call rpc
)

// protocol returns a call wrapper that names the flags to blame if a node does not speak the
// protocol of the client, which is own. A call in mucp to a gRPC server is not sent. A
// server with mucp responds to gRPC, but its errors cannot be read.
func protocol(own string) microclient.CallWrapper {
	return func(next microclient.CallFunc) microclient.CallFunc {
		return func(ctx context.Context, node *registry.Node, req microclient.Request, rsp any, opts microclient.CallOptions) error {
			server := node.Metadata["server"] // go-micro's name of the implementation; "" for a server without go-micro
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
