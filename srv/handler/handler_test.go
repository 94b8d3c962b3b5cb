package handler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/micro/go-micro/errors"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
)

const id = "go.micro.srv.basis"

func TestHelloGreets(t *testing.T) {
	b := &handler.Basis{ID: id}
	for _, name := range []string{"John", "José", strings.Repeat("x", handler.MaxNameBytes)} {
		rsp := new(proto.Response)
		require.NoError(t, b.Hello(context.Background(), &proto.Request{Name: name}, rsp))
		require.Equal(t, "Hello "+name, rsp.Msg)
	}
}

func TestHelloRefusesBadNames(t *testing.T) {
	b := &handler.Basis{ID: id}
	for _, test := range []struct{ name, want string }{
		{"", "name is empty; want 1 to 256 bytes"},
		{strings.Repeat("x", handler.MaxNameBytes+1), "name is 257 bytes; want 1 to 256"},
		{strings.Repeat("é", 200), "name is 400 bytes; want 1 to 256"},
	} {
		rsp := new(proto.Response)
		err := b.Hello(context.Background(), &proto.Request{Name: test.name}, rsp)
		require.Equal(t, errors.BadRequest(id, "%s", test.want), err)
		require.Empty(t, rsp.Msg)
	}
}

func TestDelay(t *testing.T) {
	t.Run("is waited for", func(t *testing.T) {
		b := &handler.Basis{ID: id, Delay: 50 * time.Millisecond}
		start := time.Now()
		require.NoError(t, b.Hello(context.Background(), &proto.Request{Name: "John"}, new(proto.Response)))
		require.GreaterOrEqual(t, time.Since(start), b.Delay)
	})
	t.Run("ends with the caller's deadline", func(t *testing.T) {
		b := &handler.Basis{ID: id, Delay: time.Hour}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		err := b.Hello(ctx, &proto.Request{Name: "John"}, new(proto.Response))
		require.Equal(t, errors.Timeout(id, "stopped before the delay of 1h0m0s was over: context deadline exceeded"), err)
	})
}

func TestHelloAddsASpanToTheTrace(t *testing.T) {
	tracer := mocktracer.New()
	b := &handler.Basis{ID: id}
	call := func(name string) *mocktracer.MockSpan {
		tracer.Reset()
		parent := tracer.StartSpan("parent")
		ctx := opentracing.ContextWithSpan(context.Background(), parent)
		_ = b.Hello(ctx, &proto.Request{Name: name}, new(proto.Response))
		spans := tracer.FinishedSpans()
		require.Len(t, spans, 1)
		require.Equal(t, "Hello", spans[0].OperationName)
		require.Equal(t, parent.Context().(mocktracer.MockSpanContext).SpanID, spans[0].ParentID)
		return spans[0]
	}
	require.Equal(t, map[string]any{"req": `name:"John"`, "res": `msg:"Hello John"`}, call("John").Tags())
	require.Equal(t, true, call("").Tag("error"))
}
