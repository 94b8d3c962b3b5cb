package main

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/gomicroexample/basis/proto"
)

// This file must not import gRPC's gzip: the test covers the import in main.go.
func TestCompressedRequestsAreLimitedAfterDecompression(t *testing.T) {
	conn := start(t)
	compressed := func(name []byte) (*proto.Response, error) {
		rsp := new(proto.Response)
		err := conn.Invoke(t.Context(), hello, &proto.Request{Name: string(name)}, rsp, grpc.UseCompressor("gzip"))
		return rsp, err
	}
	rsp, err := compressed([]byte("John"))
	require.NoError(t, err)
	require.Equal(t, "Hello John", rsp.GetMsg())

	_, err = compressed(make([]byte, 64<<10-4)) // a message of 64 KB
	require.ErrorContains(t, err, "name is 65532 bytes; want 1 to 256")
	for _, n := range []int{64<<10 - 3, 16 << 20} {
		_, err = compressed(make([]byte, n))
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%d bytes", n)
		require.ErrorContains(t, err, "received message after decompression larger than max 65536")
	}
	greet(t, conn)

	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: string(make([]byte, 16<<20))}, grpc.UseCompressor("gzip"))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "received message after decompression larger than max 65536")
}

// serveBuffered serves with grpcLimits on an in-memory listener, so that a test can run in a
// synctest bubble. Calls block until they are canceled.
func serveBuffered(t *testing.T) *bufconn.Listener {
	t.Helper()
	s := grpc.NewServer(append(grpcLimits(), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	}))...)
	l := bufconn.Listen(64 << 10)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l
}

// clientPing has common settings of a client's keepalive.
var clientPing = grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true})

func TestCallersMayPingEvery10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serveBuffered(t)
		dials := 0
		conn, err := grpc.NewClient("passthrough:///srv", clientPing, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				dials++
				return l.DialContext(ctx)
			}))
		require.NoError(t, err)
		defer conn.Close()

		// Twice: a call without a response for 5 minutes, and then 5 minutes without a call.
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			err = conn.Invoke(ctx, hello, &proto.Request{Name: "John"}, new(proto.Response))
			cancel()
			require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
			time.Sleep(5 * time.Minute)
		}
		require.Equal(t, 1, dials, "the server closed the connection")
	})
}

func TestCallersMayNotPingOften(t *testing.T) {
	const (
		settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		ping     = "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "abasping"
	)
	synctest.Test(t, func(t *testing.T) {
		conn, err := serveBuffered(t).Dial()
		require.NoError(t, err)
		defer conn.Close()
		received := make(chan string)
		go func() {
			var all []byte
			for buf := make([]byte, 1<<10); ; {
				n, err := conn.Read(buf)
				all = append(all, buf[:n]...)
				if err != nil {
					received <- string(all)
					return
				}
			}
		}()
		_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings))
		require.NoError(t, err)
		start := time.Now()
		for err == nil && time.Since(start) < time.Minute {
			time.Sleep(time.Second / 4)
			synctest.Wait()
			_, err = conn.Write([]byte(ping))
		}
		require.Less(t, time.Since(start), 5*time.Second, "when the server closes the connection")
		require.Contains(t, <-received, "too_many_pings")
	})
}
