// Package dispatch serves plain gRPC services on go-micro's gRPC server, which itself knows
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

// errStopping ends the streams of a server that stops. A caller may retry it elsewhere.
var errStopping = status.Error(codes.Unavailable, "the server is stopping")

// Services is a set of gRPC services. Register services with it as with a grpc.Server, for
// which generated code takes it, and give go-micro's server its Interceptor.
//
// go-micro has no means to register such a service: it creates the grpc.Server itself, and
// takes each call in the handler for unknown services. An interceptor comes before that.
//
// A service is called as on a grpc.Server:
//
//   - Each call has a goroutine and a context of its own. The context ends with the call.
//   - Metadata, deadlines, compression, the size of messages and the number of streams
//     are the connection's and the server's. go-micro's wrappers and its timeout metadata
//     do not apply.
//   - Neither gRPC nor go-micro nor this package recovers from a panic: it ends the process.
//   - Unlike gRPC, a message that cannot be read, or is missing, fails with InvalidArgument
//     and not with Internal. Package malformed says why.
//
// Register everything before the server starts; nothing may be registered after that.
type Services struct {
	handlers map[string]func(grpc.ServerStream) error // by full method
	info     map[string]grpc.ServiceInfo

	stopping context.Context // ends when the services' streams have to
	stop     context.CancelFunc

	mu       sync.RWMutex
	draining bool
	others   sync.WaitGroup // go-micro's calls that began before draining
}

// NewServices returns a set without any service.
func NewServices() *Services {
	s := &Services{handlers: map[string]func(grpc.ServerStream) error{}, info: map[string]grpc.ServiceInfo{}}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// RegisterService makes s serve desc's methods with impl. Generated code calls it. It panics
// if a service of that name is there already.
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

// Announce adds a service that s does not serve to GetServiceInfo. go-micro serves it. It
// panics if a service of that name is there already.
func (s *Services) Announce(service string) {
	if _, ok := s.info[service]; ok {
		panic(fmt.Sprintf("dispatch: service %s is registered twice", service))
	}
	s.info[service] = grpc.ServiceInfo{}
}

// GetServiceInfo returns the names of all services, for gRPC's reflection, which asks for
// nothing else.
func (s *Services) GetServiceInfo() map[string]grpc.ServiceInfo { return maps.Clone(s.info) }

// Interceptor serves the calls of the registered methods. All others go on to next, which
// is go-micro's, and also has the error for a method that nobody knows.
func (s *Services) Interceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if serve, ok := s.handlers[info.FullMethod]; ok {
		return serve(stream)
	}
	if s.begin() {
		defer s.others.Done()
	}
	return next(srv, stream)
}

// begin counts a call of go-micro's, and reports whether it did: not while s drains.
func (s *Services) begin() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.draining {
		return false
	}
	s.others.Add(1)
	return true
}

// Drain waits for go-micro's calls that began before it, and then ends all streams of the
// registered services, which otherwise last as long as their callers like: they fail with
// Unavailable, unless their handlers return nil. So do streams that begin later, at once.
//
// Call Drain before the server closes its listener, so that callers can still ask the
// services meanwhile. Calls that begin later are served and do not keep Drain waiting.
func (s *Services) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.others.Wait()
	s.stop()
}

// serveStream calls handle with a stream that ends when s stops.
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

// endingStream is a stream that ends before its caller ends it.
type endingStream struct {
	grpc.ServerStream
	ctx      context.Context // the call's, and ends with stopping too
	stopping context.Context
}

func (e *endingStream) Context() context.Context { return e.ctx }

// RecvMsg does not wait for a caller that is silent while the server stops. What then still
// waits for that caller ends with the call.
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
