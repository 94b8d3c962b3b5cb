package contender

import (
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Listen listens on a free port of the address in Host, and returns the host:port to call
// and to register: on 127.0.0.1.
func (e Env) Listen() (l net.Listener, address string, err error) {
	l, err = net.Listen("tcp", net.JoinHostPort(e.Host, "0"))
	if err != nil {
		return nil, "", err
	}
	return l, net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}

// ServerOptions returns srv's own settings of gRPC on equal terms, and none as shipped. A test
// compares them with srv's.
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

// maxResponseBytes is the pair's limit of an answer, and of its metadata.
const maxResponseBytes = 8 << 10

// DialOptions returns the settings of gRPC of the pair's client on equal terms, and none as
// shipped. A test compares them with the client's.
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
