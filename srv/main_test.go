package main

import (
	"context"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/go-micro/errors"
	registrymemory "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
	grpcserver "github.com/micro/go-micro/server/grpc"
	"github.com/micro/go-micro/util/log"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	googleproto "google.golang.org/protobuf/proto"

	"github.com/gomicroexample/basis/internal/cmdline"
	"github.com/gomicroexample/basis/internal/oneline"
	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
)

const hello = "/proto.Basis/Hello"

// raw is a codec that sends and receives messages unchanged.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (raw) Name() string                       { return "proto" }

// start runs the service with srv's own limits and returns a connection to the service.
func start(t testing.TB) *grpc.ClientConn {
	t.Helper()
	services, health := grpcServices("go.micro.srv.basis", true)
	health.Serving()
	s := grpcserver.NewServer(append(limits(services.Interceptor),
		server.Name("go.micro.srv.basis"),
		server.Address("127.0.0.1:0"),
		server.Registry(registrymemory.NewRegistry()),
		server.Broker(cmdline.NewBroker()),
	)...)
	require.NoError(t, proto.RegisterBasisHandler(s, &handler.Basis{ID: "go.micro.srv.basis"}))
	require.NoError(t, s.Start())
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	conn, err := grpc.NewClient(s.Options().Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// call sends message unchanged, with pairs of metadata, and returns the response.
func call(t testing.TB, conn *grpc.ClientConn, method string, message []byte, md ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var answer []byte
	err := conn.Invoke(metadata.AppendToOutgoingContext(ctx, md...), method, message, &answer, grpc.ForceCodec(raw{}))
	return answer, err
}

func greet(t testing.TB, conn *grpc.ClientConn) {
	t.Helper()
	answer, err := call(t, conn, hello, []byte("\x0a\x04John"))
	require.NoError(t, err)
	require.Equal(t, "\x0a\x0aHello John", string(answer))
}

func TestWhatCallersGetWrong(t *testing.T) {
	conn := start(t)
	john := []byte("\x0a\x04John")
	for _, test := range []struct {
		name, method string
		message      []byte
		md           []string
		code         codes.Code
		want         string
	}{
		{"not UTF-8", hello, []byte("\x0a\x01\xff"), nil, codes.InvalidArgument,
			`{"id":"go.micro.server","code":400,"detail":"message cannot be read: string field contains invalid UTF-8","status":"Bad Request"}`},
		{"timeout", hello, john, []string{"timeout", "5s"}, codes.InvalidArgument,
			`{"id":"go.micro.server","code":400,"detail":"timeout metadata is \"5s\"; want nanoseconds, as in 5000000000","status":"Bad Request"}`},
		{"two timeouts", hello, john, []string{"timeout", "1", "timeout", "2"}, codes.InvalidArgument,
			`{"id":"go.micro.server","code":400,"detail":"timeout metadata is \"1, 2\"; want nanoseconds, as in 5000000000","status":"Bad Request"}`},
		{"timeout too long", hello, john, []string{"timeout", "18446744073709551615"}, codes.InvalidArgument,
			`{"id":"go.micro.server","code":400,"detail":"timeout metadata is \"18446744073709551615\"; want nanoseconds, as in 5000000000","status":"Bad Request"}`},
		{"timeout over", hello, john, []string{"timeout", "-5"}, codes.DeadlineExceeded,
			`{"id":"go.micro.server","code":408,"detail":"timeout metadata is -5; the time for this call is over","status":"Request Timeout"}`},
		{"content type", hello, john, []string{"x-content-type", "text/html %d"}, codes.InvalidArgument,
			`{"id":"go.micro.server","code":415,"detail":"x-content-type metadata is \"text/html %d\"; want application/grpc+proto","status":"Unsupported Media Type"}`},
		{"content type for no protobuf", hello, john, []string{"x-content-type", "application/grpc+bytes"}, codes.InvalidArgument,
			`{"id":"go.micro.server","code":415,"detail":"x-content-type metadata is \"application/grpc+bytes\"; want application/grpc+proto","status":"Unsupported Media Type"}`},
		{"method", "/proto.Basis/Goodbye", john, nil, codes.Unimplemented,
			`{"id":"go.micro.server","code":501,"detail":"no method \"/proto.Basis/Goodbye\"; want one that the service's .proto file names","status":"Not Implemented"}`},
		{"service", "/proto.Nope/Hello", john, nil, codes.Unimplemented,
			`{"id":"go.micro.server","code":501,"detail":"no method \"/proto.Nope/Hello\"; want one that the service's .proto file names","status":"Not Implemented"}`},
		{"too large", hello, make([]byte, 64<<10+1), nil, codes.ResourceExhausted, "grpc: received message larger than max (65537 vs. 65536)"},
		{"too much metadata", hello, john, []string{"x", strings.Repeat("x", 8<<10)}, codes.Internal, "violates the maximum size (8192 bytes) set by server"},
		{"just not too large", hello, append([]byte("\x0a\xfc\xff\x03"), make([]byte, 64<<10-4)...), nil, codes.InvalidArgument, "name is 65532 bytes; want 1 to 256"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := call(t, conn, test.method, test.message, test.md...)
			require.Equal(t, test.code, status.Code(err))
			require.Contains(t, status.Convert(err).Message(), test.want)
			greet(t, conn)
		})
	}
	for _, md := range [][]string{{"timeout", "5000000000"}, {"x-content-type", "application/grpc+proto"}, {"x-content-type", "application/json"}} {
		answer, err := call(t, conn, hello, john, md...)
		require.NoError(t, err, md)
		require.Equal(t, "\x0a\x0aHello John", string(answer))
	}
}

// FuzzHello sends messages over gRPC. A response must contain the name in the message. An error
// must be a client error (4xx). In both cases, the next call must succeed.
func FuzzHello(f *testing.F) {
	f.Add([]byte("\x0a\x04John"), "", "")
	f.Add([]byte("\x0a\x0bJos\xc3\xa9 \xf0\x9f\x91\x8b!"), "5000000000", "application/grpc+proto")
	f.Add([]byte(""), "", "")
	f.Add([]byte("\x0a\x00"), "0", "")
	f.Add([]byte("\x0a\x01\xff"), "", "")
	f.Add([]byte("\x0a\x03a\nb"), "", "")
	f.Add([]byte("\x0a\x04a\xc2\x9bb"), "", "")
	f.Add([]byte("\x0a\x04John\x0a\x03Ann"), "", "application/json")
	f.Add([]byte("\x0a\x04John\x12\x01x\x1d\x01\x02\x03\x04"), "", "") // unknown fields
	f.Add([]byte("\x0b\x0b\x0b\x0c"), "", "")                          // groups
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"), "", "")                  // a length beyond the end
	f.Add([]byte("\x0a\x81\x02"+strings.Repeat("x", handler.MaxNameBytes+1)), "", "")
	f.Add([]byte("\x0a\x80\x02"+strings.Repeat("x", handler.MaxNameBytes)), "", "")
	f.Add([]byte("\x0a\x04John"), "5s", "text/html %d")
	f.Add([]byte("\x0a\x04John"), "-1", "application/grpc+bytes")
	f.Add([]byte("\x0a\x04John"), "18446744073709551615", "application/grpc")

	conn := start(f)
	f.Fuzz(func(t *testing.T, message []byte, timeout, contentType string) {
		var md []string
		for key, value := range map[string]string{"timeout": timeout, "x-content-type": contentType} {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) || len(value) > 1000 {
				t.Skip("gRPC's client does not send this")
			}
			if value != "" {
				md = append(md, key, value)
			}
		}
		answer, err := call(t, conn, hello, message, md...)
		if err == nil {
			req, rsp := new(proto.Request), new(proto.Response)
			require.NoError(t, googleproto.Unmarshal(message, req), "the server responded to a message that is not a request")
			require.NoError(t, googleproto.Unmarshal(answer, rsp))
			require.Equal(t, "Hello "+req.Name, rsp.Msg)
			require.LessOrEqual(t, len(req.Name), handler.MaxNameBytes)
			require.NotEmpty(t, req.Name)
			require.False(t, strings.ContainsFunc(rsp.Msg, oneline.Breaks))
		} else {
			requireClientError(t, err)
		}
		greet(t, conn)
	})
}

// FuzzServices sends messages to gRPC's own services. An error must be a client error, and the next
// call must succeed.
func FuzzServices(f *testing.F) {
	for _, method := range grpcMethods {
		f.Add([]byte(""), method)
		f.Add([]byte("\x0a\x0bproto.Basis"), method) // the service to check, or reflection's host
		f.Add([]byte("\xff\xff"), method)
		f.Add([]byte("\x0a\x01\xff"), method)
	}
	for _, request := range []string{
		"\x1a\x11proto/basis.proto", "\x22\x0bproto.Basis", "\x22\x00", "\x2a\x00", "\x2a\x04\x0a\x00\x10\x01",
		"\x32\x00", "\x32\x1cgoogle.protobuf.FieldOptions", "\x3a\x00", "\x3a\x01*",
	} {
		f.Add([]byte(request), grpcMethods[2])
	}
	conn := start(f)
	f.Fuzz(func(t *testing.T, message []byte, method string) {
		if !slices.Contains(grpcMethods, method) {
			t.Skip("no method of gRPC's services")
		}
		_, err := call(t, conn, method, message)
		require.Contains(t, []codes.Code{codes.OK, codes.InvalidArgument, codes.NotFound, codes.ResourceExhausted}, status.Code(err), "%v", err)
		require.False(t, strings.ContainsFunc(status.Convert(err).Message(), oneline.Breaks), err)
		greet(t, conn)
	})
}

// grpcMethods are the methods of gRPC's services whose calls end without cancellation.
var grpcMethods = []string{
	"/grpc.health.v1.Health/Check",
	"/grpc.health.v1.Health/List",
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

func TestReflectionCanBeOff(t *testing.T) {
	for _, reflected := range []bool{true, false} {
		services, _ := grpcServices("name", reflected)
		_, v1 := services.GetServiceInfo()["grpc.reflection.v1.ServerReflection"]
		_, v1alpha := services.GetServiceInfo()["grpc.reflection.v1alpha.ServerReflection"]
		require.Equal(t, reflected, v1)
		require.Equal(t, reflected, v1alpha)
	}
}

// requireClientError requires that err is a go-micro error on one line with a code from 400 to 499,
// or gRPC's error about a message that is too large.
func requireClientError(t testing.TB, err error) {
	t.Helper()
	s := status.Convert(err)
	require.False(t, strings.ContainsFunc(s.Message(), oneline.Breaks), s.Message())
	if s.Code() == codes.ResourceExhausted {
		require.Contains(t, s.Message(), "message larger than max")
		return
	}
	e := errors.Parse(s.Message())
	require.GreaterOrEqual(t, e.Code, int32(400), s)
	require.Less(t, e.Code, int32(500), s)
	require.NotEmpty(t, e.Detail)
	require.False(t, strings.ContainsFunc(e.Detail, oneline.Breaks), e.Detail)
}

// TestMain turns logging off: Hello logs each call.
func TestMain(m *testing.M) {
	log.SetLevel(log.Level(math.MaxInt))
	os.Exit(m.Run())
}
