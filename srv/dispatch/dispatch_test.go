//lint:file-ignore SA1019 Older clients use v1alpha of reflection.

package dispatch_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	registrymemory "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-micro/util/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/dispatch"
	"github.com/gomicroexample/basis/srv/handler"
	"github.com/gomicroexample/basis/srv/malformed"
)

func TestMain(m *testing.M) {
	log.SetLevel(log.Level(math.MaxInt))
	goleak.VerifyTestMain(m,
		// go-micro's default router runs until the process exits.
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/router.(*router).watchRegistry"),
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/router.(*router).watchRegistry.func2"),
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/router.(*router).watchErrors"),
		goleak.IgnoreAnyFunction("github.com/micro/go-micro/registry/memory.(*Registry).watch"), // of stopped servers
	)
}

const (
	check = "/grpc.health.v1.Health/Check"
	watch = "/grpc.health.v1.Health/Watch"
	info  = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
)

var wholeServer = &healthpb.HealthCheckRequest{}

// newServices returns gRPC's health and reflection, and the services that register adds.
func newServices(register ...func(grpc.ServiceRegistrar)) *dispatch.Services {
	s := dispatch.NewServices()
	s.Announce("proto.Basis")
	healthpb.RegisterHealthServer(s, grpchealth.NewServer())
	reflection.Register(s)
	for _, r := range register {
		r(s)
	}
	return s
}

// start runs Basis and services on go-micro's server until the test ends, and returns a
// connection to the server.
func start(t *testing.T, services *dispatch.Services) *grpc.ClientConn {
	t.Helper()
	s := grpcserver.NewServer(
		server.Name("svc"),
		server.Address("127.0.0.1:0"),
		server.Registry(registrymemory.NewRegistry()),
		server.Broker(cmdline.NewBroker()),
		grpcserver.MaxMsgSize(64<<10),
		grpcserver.Options(grpc.ChainStreamInterceptor(services.Interceptor, malformed.Interceptor)),
	)
	require.NoError(t, proto.RegisterBasisHandler(s, &handler.Basis{ID: "svc"}))
	require.NoError(t, s.Start())
	conn, err := grpc.NewClient(s.Options().Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	t.Cleanup(func() { // runs first: the server must stop while the connection is open
		services.Drain()
		require.NoError(t, s.Stop())
	})
	return conn
}

func greet(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	rsp := new(proto.Response)
	require.NoError(t, conn.Invoke(t.Context(), "/proto.Basis/Hello", &proto.Request{Name: "John"}, rsp))
	require.Equal(t, "Hello John", rsp.Msg)
}

func TestGRPCsServicesBesideGoMicros(t *testing.T) {
	conn := start(t, newServices())
	greet(t, conn)
	health := healthpb.NewHealthClient(conn)
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		rsp, err := health.Check(t.Context(), wholeServer, opts...)
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, rsp.Status)
	}
	_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nope"})
	require.Equal(t, "rpc error: code = NotFound desc = unknown service", err.Error())

	ctx, cancel := context.WithCancel(t.Context())
	stream, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: "nope"})
	require.NoError(t, err)
	rsp, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVICE_UNKNOWN, rsp.Status)
	cancel()
	_, err = stream.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))

	for _, method := range []string{"/grpc.health.v1.Health/Nope", "/grpc.health.v1.Nope/Check", "/Health/Check"} {
		err = conn.Invoke(t.Context(), method, &healthpb.HealthCheckRequest{}, new(healthpb.HealthCheckResponse))
		require.Equal(t, codes.Unimplemented, status.Code(err), method)
		require.ErrorContains(t, err, "no method \\\""+method+"\\\"; want one that the service's .proto file names")
	}
	greet(t, conn)
}

func TestReflection(t *testing.T) {
	services := newServices()
	names := slices.Sorted(maps.Keys(services.GetServiceInfo()))
	require.Equal(t, []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "proto.Basis"}, names)

	conn := start(t, services)
	v1, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, v1.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
	rsp, err := v1.Recv()
	require.NoError(t, err)
	var listed []string
	for _, s := range rsp.GetListServicesResponse().GetService() {
		listed = append(listed, s.Name)
	}
	require.Equal(t, names, listed)
	require.NoError(t, v1.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "proto.Basis"},
	}))
	rsp, err = v1.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, rsp.GetFileDescriptorResponse().GetFileDescriptorProto())
	require.NoError(t, v1.CloseSend())
	_, err = v1.Recv()
	require.ErrorIs(t, err, io.EOF, "the caller ended the stream, but the stream did not end")

	v1alpha, err := grpc_reflection_v1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, v1alpha.Send(&grpc_reflection_v1alpha.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{},
	}))
	old, err := v1alpha.Recv()
	require.NoError(t, err)
	require.Len(t, old.GetListServicesResponse().GetService(), len(names))
	require.NoError(t, v1alpha.CloseSend())
	greet(t, conn)
}

// raw is a codec that sends messages unchanged.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }

func TestMalformedMessages(t *testing.T) {
	conn := start(t, newServices())
	for _, method := range []string{check, watch, info} {
		for _, test := range []struct {
			name    string
			message []byte // nil: no message
			code    codes.Code
			want    string
		}{
			{"no message", nil, codes.InvalidArgument, `"code":400,"detail":"no message"`},
			{"garbage", []byte("\xff\xff"), codes.InvalidArgument, `"code":400,"detail":"message cannot be read: `},
			{"not UTF-8", []byte("\x0a\x01\xff"), codes.InvalidArgument, `"code":400,"detail":"message cannot be read: string field contains invalid UTF-8"`},
			{"too large", make([]byte, 64<<10+1), codes.ResourceExhausted, "grpc: received message larger than max (65537 vs. 65536)"},
		} {
			t.Run(method+" "+test.name, func(t *testing.T) {
				stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(raw{}))
				require.NoError(t, err)
				if test.message != nil {
					require.NoError(t, stream.SendMsg(test.message))
				}
				require.NoError(t, stream.CloseSend())
				err = stream.RecvMsg(nil)
				require.Equal(t, test.code, status.Code(err), "%v", err)
				require.ErrorContains(t, err, test.want)
				greet(t, conn)
			})
		}
	}
}

// echo is a service. Its method checks the call's context, and returns metadata from the context.
// Its streams block until their contexts end.
var echo = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			if in.Value == "fail" {
				return nil, errors.New("failed")
			}
			if _, ok := ctx.Deadline(); !ok {
				return nil, errors.New("no deadline")
			}
			if _, ok := peer.FromContext(ctx); !ok {
				return nil, errors.New("no peer")
			}
			values := metadata.ValueFromIncomingContext(ctx, "key")
			return wrapperspb.String(values[0]), errors.Join(grpc.SetHeader(ctx, metadata.Pairs("h", "1")), grpc.SetTrailer(ctx, metadata.Pairs("t", "2")))
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Stream", ClientStreams: true, ServerStreams: true,
		Handler: func(impl any, stream grpc.ServerStream) error {
			<-stream.Context().Done()
			impl.(chan error) <- stream.Context().Err()
			return errors.New("ended")
		},
	}, {
		StreamName: "Finish", ClientStreams: true, ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return nil
		},
	}},
}

func TestContextAndErrorsOfACall(t *testing.T) {
	ended := make(chan error, 1)
	conn := start(t, newServices(func(r grpc.ServiceRegistrar) { r.RegisterService(&echo, ended) }))
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "key", "value", "timeout", "none of gRPC's"), time.Minute)
	defer cancel()
	var header, trailer metadata.MD
	out := new(wrapperspb.StringValue)
	require.NoError(t, conn.Invoke(ctx, "/test.Echo/Call", wrapperspb.String(""), out, grpc.Header(&header), grpc.Trailer(&trailer)))
	require.Equal(t, "value", out.Value)
	require.Equal(t, []string{"1"}, header["h"])
	require.Equal(t, []string{"2"}, trailer["t"])

	err := conn.Invoke(ctx, "/test.Echo/Call", wrapperspb.String("fail"), out)
	require.EqualError(t, err, "rpc error: code = Unknown desc = failed") // as from a grpc.Server

	ctx, leave := context.WithCancel(ctx)
	_, err = conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Stream")
	require.NoError(t, err)
	leave()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestAServiceIsRegisteredOnce(t *testing.T) {
	services := newServices()
	require.PanicsWithValue(t, "dispatch: service grpc.health.v1.Health is registered twice", func() {
		healthpb.RegisterHealthServer(services, grpchealth.NewServer())
	})
	require.Panics(t, func() { services.Announce("proto.Basis") })
}

// Without Drain, each of these streams lasts until its caller ends the stream. The server stops
// when the test ends, while the connection is open.
func TestDrainEndsStreams(t *testing.T) {
	services := newServices(func(r grpc.ServiceRegistrar) { r.RegisterService(&echo, nil) })
	conn := start(t, services)
	open := func(method string, messages ...[]byte) grpc.ClientStream {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(raw{}))
		require.NoError(t, err)
		for _, m := range messages {
			require.NoError(t, stream.SendMsg(m))
			require.NoError(t, stream.RecvMsg(nil))
		}
		return stream
	}
	listServices := []byte("\x3a\x01*")
	finished := open("/test.Echo/Finish")
	streams := []grpc.ClientStream{open(watch, []byte{}), open(watch), open(info, listServices, listServices), open(info)}
	services.Drain()
	services.Drain() // does nothing
	require.ErrorIs(t, finished.RecvMsg(nil), io.EOF)
	for i, stream := range append(streams, open(watch), open(info)) {
		require.EqualError(t, stream.RecvMsg(nil), "rpc error: code = Unavailable desc = the server is stopping", i)
	}
	_, err := healthpb.NewHealthClient(conn).Check(t.Context(), wholeServer)
	require.NoError(t, err, "the server must still serve calls that are not streams")
	greet(t, conn)
}

func TestDrainWaitsForTheCallsBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services := newServices()
		call := func(answer chan error) {
			_ = services.Interceptor(nil, nil, &grpc.StreamServerInfo{FullMethod: "/proto.Basis/Hello"},
				func(any, grpc.ServerStream) error { return <-answer })
		}
		before, after := make(chan error), make(chan error)
		defer close(after)
		go call(before)
		go call(before)
		synctest.Wait()
		drained := false
		go func() { services.Drain(); drained = true }()
		synctest.Wait()
		go call(after)
		before <- nil
		synctest.Wait()
		require.False(t, drained)
		before <- errors.New("failed")
		synctest.Wait()
		require.True(t, drained, "Drain waits for a call that began after Drain")
	})
}

func TestManyCallersWhileItDrains(t *testing.T) {
	services := newServices()
	conn := start(t, services)
	health := healthpb.NewHealthClient(conn)
	calls := []func() error{
		func() error {
			return conn.Invoke(t.Context(), "/proto.Basis/Hello", &proto.Request{Name: "John"}, new(proto.Response))
		},
		func() error {
			_, err := health.Check(t.Context(), wholeServer)
			return err
		},
		func() error {
			stream, err := health.Watch(t.Context(), wholeServer)
			for err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Unavailable {
				return err
			}
			return nil
		},
	}
	var callers errgroup.Group
	begun := make(chan struct{}, 1000)
	for i := range 24 {
		callers.Go(func() error {
			for range 20 {
				begun <- struct{}{}
				if err := calls[i%3](); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 100 {
		<-begun
	}
	services.Drain()
	require.NoError(t, callers.Wait())
}
