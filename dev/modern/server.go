package modern

import (
	"context"
	"log"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/dev/internal/basisgrpc"
	"github.com/gomicroexample/basis/proto"
)

// ServiceName is the name of the service in Consul. srv registers under the same name.
const ServiceName = "go.micro.srv.basis"

// NewServer returns a server with tracing, gRPC's health service and the Basis service. Each valid
// call of Hello waits for the duration delay before it returns.
func NewServer(t trace.TracerProvider, delay time.Duration, opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(t), otelgrpc.WithPropagators(Propagator))),
	}, opts...)...)
	healthpb.RegisterHealthServer(s, health.NewServer()) // SERVING from the start
	tracer := t.Tracer("basis")
	hello := func(ctx context.Context, req *proto.Request) (*proto.Response, error) {
		ctx, span := tracer.Start(ctx, "Hello")
		defer span.End()
		span.SetAttributes(attribute.String("req", req.GetName()))
		log.Print("Yoooo! I received it")
		if n := len(req.GetName()); n < 1 || n > 256 {
			return nil, fail(span, status.Errorf(codes.InvalidArgument, "name has %d bytes; want 1 to 256", n))
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil, fail(span, status.FromContextError(ctx.Err()).Err())
			}
		}
		rsp := &proto.Response{Msg: "Hello " + req.GetName()}
		span.SetAttributes(attribute.String("res", rsp.GetMsg()))
		return rsp, nil
	}
	basisgrpc.Register(s, hello)
	basisgrpc.RegisterAs(s, ServiceName+".Basis", hello) // for go-micro's clients
	return s
}
