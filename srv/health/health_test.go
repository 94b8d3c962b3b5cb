package health_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/srv/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
	unknown    = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
)

func requireAll(t *testing.T, s *health.Server, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	all, err := s.List(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all.Statuses, 3)
	for _, service := range []string{"", "a", "b"} {
		one, err := s.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		require.Equal(t, want, one.Status, service)
		require.Equal(t, want, all.Statuses[service].GetStatus(), service)
	}
}

func TestStatusOfAllServices(t *testing.T) {
	s := health.NewServer("a", "b")
	requireAll(t, s, notServing)
	for range 2 { // once per renewal
		s.Serving()
		requireAll(t, s, serving)
	}
	s.Shutdown()
	requireAll(t, s, notServing)
	s.Serving() // by a renewal in flight at the shutdown
	requireAll(t, s, notServing)

	_, err := s.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "c"})
	require.Equal(t, codes.NotFound, status.Code(err))
}

// stream is the stream of a Watch call.
type stream struct {
	healthpb.Health_WatchServer // for the methods that the tests do not call
	ctx                         context.Context
	sent                        chan healthpb.HealthCheckResponse_ServingStatus
	next                        chan struct{} // closed when Send may return
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Send(rsp *healthpb.HealthCheckResponse) error {
	s.sent <- rsp.Status
	<-s.next
	return nil
}

// gRPC's own Watch loses the last status in about half of the rounds.
func TestWatchersLearnOfTheShutdown(t *testing.T) {
	for range 50 {
		for service, want := range map[string][]healthpb.HealthCheckResponse_ServingStatus{
			"":  {serving, notServing},
			"a": {serving, notServing},
			"c": {unknown},
		} {
			s := health.NewServer("a")
			s.Serving()
			ctx, cancel := context.WithCancel(t.Context())
			w := &stream{ctx: ctx, sent: make(chan healthpb.HealthCheckResponse_ServingStatus, 9), next: make(chan struct{})}
			ended := make(chan error)
			go func() { ended <- s.Watch(&healthpb.HealthCheckRequest{Service: service}, w) }()
			got := []healthpb.HealthCheckResponse_ServingStatus{<-w.sent}
			s.Shutdown()
			cancel()
			close(w.next)
			require.Equal(t, codes.Canceled, status.Code(<-ended))
			close(w.sent)
			for sent := range w.sent {
				got = append(got, sent)
			}
			require.Equal(t, want, got, "%q", service)
		}
	}
}
