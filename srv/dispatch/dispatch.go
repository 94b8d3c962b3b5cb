// Package dispatch serves plain gRPC services on go-micro's gRPC server, which by itself serves
// only go-micro's handlers.
package dispatch

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gomicroexample/basis/srv/malformed"
)

// errStopping ends the streams of a stopping server. A caller may retry at another node.
var errStopping = status.Error(codes.Unavailable, "the server is stopping")

// Services is a set of gRPC services. Pass it to generated Register functions in place of a
// grpc.Server, and add its Interceptor to go-micro's server.
//
// go-micro cannot register a plain gRPC service: go-micro creates the grpc.Server itself, and
// handles every call in the handler for unknown services. An interceptor runs before this handler.
//
// A service behaves as on a grpc.Server, except for the last item of this list:
//
//   - Each call has its own goroutine and its own context. The context ends with the call.
//   - The connection and the server determine the metadata, the deadline, the compression, the
//     size of messages and the number of streams. go-micro's wrappers and its timeout metadata
//     do not apply.
//   - A panic ends the process. gRPC, go-micro and this package do not recover from panics.
//   - If a call has no message, or a message that cannot be decoded, the call fails with
//     InvalidArgument. On a grpc.Server, most of these calls fail with Internal. See package
//     malformed.
//
// Register all services before the server starts.
type Services struct {
	handlers map[string]func(grpc.ServerStream) error // by full method
	info     map[string]grpc.ServiceInfo

	stopping context.Context // ends when the services' streams must end
	stop     context.CancelFunc

	mu       sync.RWMutex
	draining bool
	others   sync.WaitGroup // calls to go-micro's handlers that began before Drain
}

// NewServices returns an empty set of services.
func NewServices() *Services {
	s := &Services{handlers: map[string]func(grpc.ServerStream) error{}, info: map[string]grpc.ServiceInfo{}}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// RegisterService serves the methods of desc with impl. Generated code calls RegisterService.
// RegisterService panics if a service with the same name is already registered or announced.
func (s *Services) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.Announce(desc.ServiceName)
	for _, m := range desc.Methods {
		s.handlers["/"+desc.ServiceName+"/"+m.MethodName] = func(stream grpc.ServerStream) error {
			stream = malformed.Decoder(stream)
			rsp, err := m.Handler(impl, stream.Context(), stream.RecvMsg, nil)
			if err != nil {
				return err
			}
			return stream.SendMsg(rsp)
		}
	}
	for _, m := range desc.Streams {
		s.handlers["/"+desc.ServiceName+"/"+m.StreamName] = func(stream grpc.ServerStream) error {
			return s.serveStream(func(stream grpc.ServerStream) error { return m.Handler(impl, stream) }, stream)
		}
	}
}

// Announce makes GetServiceInfo list service, the name of a service that go-micro serves. It panics
// if a service with the same name is already registered or announced.
func (s *Services) Announce(service string) {
	if _, ok := s.info[service]; ok {
		panic(fmt.Sprintf("dispatch: service %s is registered twice", service))
	}
	s.info[service] = grpc.ServiceInfo{}
}

// GetServiceInfo returns the names of all services, for gRPC's reflection, which needs only the
// names.
func (s *Services) GetServiceInfo() map[string]grpc.ServiceInfo { return maps.Clone(s.info) }

// Interceptor serves the calls to registered methods. It passes all other calls to the next
// interceptor or handler: these are calls to go-micro's handlers, and calls to unknown methods.
func (s *Services) Interceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if serve, ok := s.handlers[info.FullMethod]; ok {
		return serve(stream)
	}
	if s.begin() {
		defer s.others.Done()
	}
	return next(srv, stream)
}

// begin counts a call to go-micro's handlers, and returns true. After Drain has begun, begin counts
// nothing and returns false.
func (s *Services) begin() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.draining {
		return false
	}
	s.others.Add(1)
	return true
}

// Drain waits for the in-flight calls to go-micro's handlers, and then ends all streams of the
// registered services. Without Drain, a stream lasts until its caller ends the stream. When Drain
// ends a stream, the stream succeeds if its handler returns nil. Otherwise, the stream fails with
// Unavailable. A stream that begins after Drain ends at once, in the same way.
//
// Call Drain before the server closes its listener, so that callers can use the services while
// Drain waits. The server still serves new calls that are not streams, but Drain does not wait for
// these calls. go-micro's server waits for them after Drain, without a timeout.
func (s *Services) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.others.Wait()
	s.stop()
}

// serveStream calls the function handle with a stream that ends when s.stopping ends.
func (s *Services) serveStream(handle func(grpc.ServerStream) error, stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	err := handle(&endingStream{malformed.Decoder(stream), ctx, s.stopping})
	if err != nil && s.stopping.Err() != nil && stream.Context().Err() == nil {
		return errStopping
	}
	return err
}

// endingStream is a stream that the server can end.
type endingStream struct {
	grpc.ServerStream
	ctx      context.Context // the call's context; also ends with stopping
	stopping context.Context
}

func (e *endingStream) Context() context.Context { return e.ctx }

// RecvMsg receives a message. When the server stops, RecvMsg returns errStopping, even if the
// caller sends nothing. The goroutine that RecvMsg started then waits until the call ends.
func (e *endingStream) RecvMsg(m any) error {
	received := make(chan error, 1)
	go func() { received <- e.ServerStream.RecvMsg(m) }()
	select {
	case err := <-received:
		return err
	case <-e.stopping.Done():
		return errStopping
	}
}
