// Package health reports to gRPC's health checks whether the server has registered and is not
// stopping.
package health

import (
	"context"

	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Server implements Check, List and Watch of grpc.health.v1. Create a Server with NewServer.
type Server struct {
	*grpchealth.Server
	services []string
}

// NewServer returns a Server for the named services and for "", which stands for the server as a
// whole. All services are NOT_SERVING until Serving is called.
func NewServer(services ...string) *Server {
	s := &Server{grpchealth.NewServer(), append(services, "")}
	s.set(healthpb.HealthCheckResponse_NOT_SERVING)
	return s
}

// Serving sets all services to SERVING. After Shutdown, Serving does nothing.
func (s *Server) Serving() { s.set(healthpb.HealthCheckResponse_SERVING) }

func (s *Server) set(status healthpb.HealthCheckResponse_ServingStatus) {
	for _, service := range s.services {
		s.SetServingStatus(service, status)
	}
}

// Watch sends the status of a service, and each change of the status, until the stream's context
// ends. When the context ends, gRPC's own Watch may return without sending the last change. This
// Watch sends the last change before it returns. So a watcher learns of a Shutdown that happens
// just before the context ends.
func (s *Server) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	w := &watcher{stream, healthpb.HealthCheckResponse_UNKNOWN}
	err := s.Server.Watch(req, w)
	if now, unknown := s.Check(context.Background(), req); unknown == nil && now.Status != w.sent {
		_ = stream.Send(now) // fails if the caller is gone
	}
	return err
}

// watcher is a stream that records the last sent status.
type watcher struct {
	healthpb.Health_WatchServer
	sent healthpb.HealthCheckResponse_ServingStatus
}

func (w *watcher) Send(rsp *healthpb.HealthCheckResponse) error {
	w.sent = rsp.Status
	return w.Health_WatchServer.Send(rsp)
}
