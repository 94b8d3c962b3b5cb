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
// as a stream. A malformed call fails with a go-micro error:
//
//   - 400 (InvalidArgument): the call has no message, or a message that cannot be decoded.
//     go-micro alone returns a server error (Unknown or Internal).
//   - 400 (InvalidArgument): the timeout metadata is not a number of nanoseconds. go-micro alone
//     ignores such metadata.
//   - 408 (DeadlineExceeded): the timeout metadata is 0 or less.
//   - 415 (InvalidArgument): go-micro has no codec for the x-content-type metadata. go-micro alone
//     returns a 500.
//   - 501 (Unimplemented): the service or the method is unknown. The error of go-micro alone
//     contains values of its internal structs.
//
// All other errors, for example about a message that is too large, stay as gRPC or go-micro
// returns them.
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
	case !ok: // go-micro returns an error without a code only for x-content-type
		return rejection(codes.InvalidArgument, 415, "x-content-type metadata is %.100q; want application/grpc+proto",
			strings.Join(header("x-content-type"), ", "))
	case s.Code() == codes.Unimplemented && strings.HasPrefix(s.Message(), "unknown service "):
		return rejection(codes.Unimplemented, 501, "no method %.100q; want one that the service's .proto file names", info.FullMethod)
	}
	return err
}

// Decoder returns stream with another RecvMsg. This RecvMsg fails with InvalidArgument for a
// message that cannot be decoded, where gRPC's RecvMsg fails with Internal. It also fails with
// InvalidArgument for a call without any message, where gRPC's RecvMsg returns io.EOF. After the
// first message, io.EOF means that there are no more messages.
func Decoder(stream grpc.ServerStream) grpc.ServerStream {
	return &decoder{ServerStream: stream, codec: codec(metadata.ValueFromIncomingContext(stream.Context(), "content-type"))}
}

// decoder is a call's stream that decodes messages itself. gRPC's own RecvMsg sends a decoding
// error to the caller before it returns the error. After that, the error cannot be replaced.
type decoder struct {
	grpc.ServerStream
	codec    encoding.Codec
	received bool // at least one message
}

func (d *decoder) RecvMsg(m any) error {
	var frame bytes.Frame // go-micro's codecs store the encoded message in a Frame
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

// codec returns the codec that gRPC uses for a content type: the codec whose name follows
// "application/grpc+". The default is proto.
func codec(contentType []string) encoding.Codec {
	name := strings.TrimLeft(strings.TrimPrefix(strings.Join(contentType, ""), "application/grpc"), "+;")
	if c := encoding.GetCodec(name); c != nil {
		return c
	}
	return encoding.GetCodec("proto")
}

// rejection returns a gRPC error with the given code. Its message is a go-micro error with
// go-micro's own ID.
func rejection(code codes.Code, httpStatus int32, format string, a ...any) error {
	return status.Error(code, errors.New("go.micro.server", fmt.Sprintf(format, a...), httpStatus).Error())
}
