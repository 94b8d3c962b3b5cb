package handler_test

import (
	"context"
	"testing"

	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/server"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go"
)

// The article's handler takes the parent of its span from the metadata. With go-micro's own
// transport, the metadata has two spans: the caller's span under the HTTP spelling of the header,
// and the server's span under the plugin's spelling. Extract returns one of the two spans at
// random. Hello uses the span in its context, which is the server's span.
func TestStockParentInMetadataIsEitherSpan(t *testing.T) {
	tr, closer := jaeger.NewTracer(id, jaeger.NewConstSampler(true), jaeger.NewNullReporter())
	defer closer.Close()
	callers := tr.StartSpan("caller").Context().(jaeger.SpanContext)
	ctx := metadata.NewContext(context.Background(), metadata.Metadata{"Uber-Trace-Id": callers.String()})

	wrapped := ocplugin.NewHandlerWrapper(tr)(func(ctx context.Context, _ server.Request, _ any) error {
		servers := opentracing.SpanFromContext(ctx).Context().(jaeger.SpanContext)
		require.Equal(t, callers.SpanID(), servers.ParentID())
		md, _ := metadata.FromContext(ctx)
		found := map[jaeger.SpanID]bool{}
		// The metadata is a map with two keys in eight slots, and an iteration starts at a random
		// slot. So one key comes first in one of eight iterations. So the probability that all
		// rounds return the same span is about (7/8)^1000.
		for range 1000 {
			parent, err := tr.Extract(opentracing.TextMap, opentracing.TextMapCarrier(md))
			require.NoError(t, err)
			found[parent.(jaeger.SpanContext).SpanID()] = true
		}
		require.Equal(t, map[jaeger.SpanID]bool{callers.SpanID(): true, servers.SpanID(): true}, found)
		return nil
	})
	require.NoError(t, wrapped(ctx, request{}, nil))
}

// request is a server.Request for Hello.
type request struct{ server.Request }

func (request) Service() string  { return id }
func (request) Endpoint() string { return "Basis.Hello" }
