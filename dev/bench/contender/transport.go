package contender

import (
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Listen listens on a free port of e.Host. The returned address is 127.0.0.1 with this port.
// Clients call this address, and the server registers it.
func (e Env) Listen() (l net.Listener, address string, err error) {
	l, err = net.Listen("tcp", net.JoinHostPort(e.Host, "0"))
	if err != nil {
		return nil, "", err
	}
	return l, net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}

// ServerOptions returns srv's gRPC settings, or no settings if e.Shipped is set. A test compares
// the settings with srv's code.
func (e Env) ServerOptions() []grpc.ServerOption {
	if e.Shipped {
		return nil
	}
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 10),
		grpc.MaxSendMsgSize(64 << 10),
		grpc.MaxHeaderListSize(8 << 10),
		grpc.MaxConcurrentStreams(500),
		grpc.StaticStreamWindowSize(64 << 10),
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.NumStreamWorkers(64),
	}
}

// maxResponseBytes is the pair's limit for a response, and for its metadata, in bytes.
const maxResponseBytes = 8 << 10

// DialOptions returns the gRPC settings of the pair's client, or no settings if e.Shipped is set. A
// test compares the settings with the client's code.
func (e Env) DialOptions() []grpc.DialOption {
	if e.Shipped {
		return nil
	}
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithMaxHeaderListSize(maxResponseBytes),
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(64 << 10),
	}
}
