// Package malformed rejects malformed calls before they reach the service's handler. Each
// error names the mistake in the call.
package malformed

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/micro/go-micro/codec/bytes"
	"github.com/micro/go-micro/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Interceptor is a stream interceptor for go-micro's gRPC server, which serves each call
// as a stream. A call that is not well formed fails with a go-micro error:
//
//   - 400 (InvalidArgument): no message, or one that is no request, which would be
//     the server's fault (Internal); timeout metadata that is no number of
//     nanoseconds, which would be ignored
//   - 408 (DeadlineExceeded): timeout metadata of 0 or less
//   - 415 (InvalidArgument): x-content-type metadata that go-micro has no codec for,
//     which would be a 500
//   - 501 (Unimplemented): an unknown service or method, of which go-micro would
//     print what it has in memory
//
// The rest, such as a message that is too large, keeps gRPC's and go-micro's words.
func Interceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	header := func(key string) []string { return metadata.ValueFromIncomingContext(stream.Context(), key) }
	if values := header("timeout"); len(values) > 0 {
		text := strings.Join(values, ", ") // as go-micro does
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return rejection(codes.InvalidArgument, 400, "timeout metadata is %.100q; want nanoseconds, as in 5000000000", text)
		}
		if n <= 0 {
			return rejection(codes.DeadlineExceeded, 408, "timeout metadata is %d; the time for this call is over", n)
		}
	}
	err := handler(srv, Decoder(stream))
	switch s, ok := status.FromError(err); {
	case !ok: // only of x-content-type does go-micro say something that has no code
		return rejection(codes.InvalidArgument, 415, "x-content-type metadata is %.100q; want application/grpc+proto",
			strings.Join(header("x-content-type"), ", "))
	case s.Code() == codes.Unimplemented && strings.HasPrefix(s.Message(), "unknown service "):
		return rejection(codes.Unimplemented, 501, "no method %.100q; want one that the service's .proto file names", info.FullMethod)
	}
	return err
}

// Decoder returns a call's stream whose RecvMsg fails with InvalidArgument for a message that
// cannot be read, and for a call without any message. gRPC's own error would be Internal for
// the one and io.EOF for the other. After the first message, io.EOF says that there is no
// other one.
func Decoder(stream grpc.ServerStream) grpc.ServerStream {
	return &decoder{ServerStream: stream, codec: codec(metadata.ValueFromIncomingContext(stream.Context(), "content-type"))}
}

// decoder is a call's stream, but decodes messages itself: gRPC would have answered
// by the time that its RecvMsg returns an error.
type decoder struct {
	grpc.ServerStream
	codec    encoding.Codec
	received bool // a message
}

func (d *decoder) RecvMsg(m any) error {
	var frame bytes.Frame // go-micro's codecs leave what is in one as it is
	err := d.ServerStream.RecvMsg(&frame)
	if err == io.EOF && !d.received {
		return rejection(codes.InvalidArgument, 400, "no message")
	}
	if err != nil {
		return err
	}
	d.received = true
	if err := d.codec.Unmarshal(frame.Data, m); err != nil {
		return rejection(codes.InvalidArgument, 400, "message cannot be read: %v", err)
	}
	return nil
}

// codec returns the codec that gRPC takes for a content type: the one named after
// "application/grpc+", or proto.
func codec(contentType []string) encoding.Codec {
	name := strings.TrimLeft(strings.TrimPrefix(strings.Join(contentType, ""), "application/grpc"), "+;")
	if c := encoding.GetCodec(name); c != nil {
		return c
	}
	return encoding.GetCodec("proto")
}

// rejection returns a go-micro error, with go-micro's own ID, as gRPC sends it.
func rejection(code codes.Code, httpStatus int32, format string, a ...any) error {
	return status.Error(code, errors.New("go.micro.server", fmt.Sprintf(format, a...), httpStatus).Error())
}
