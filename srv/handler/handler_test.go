package handler_test

import (
	"context"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/util/log"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/proto"
	"github.com/gomicroexample/basis/srv/handler"
)

const id = "go.micro.srv.basis"

func TestHelloGreets(t *testing.T) {
	b := &handler.Basis{ID: id}
	for _, name := range []string{"John", "José", "山田 太郎", "👩🏽‍🚀", strings.Repeat("x", handler.MaxNameBytes)} {
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
		{"John\xff", "name is not UTF-8"},
		{"John\n2026/01/01 all is well", "name has the control character U+000A; want text on one line"},
		{"\x1b[31mJohn", "name has the control character U+001B; want text on one line"},
		{"John\u009b2J", "name has the control character U+009B; want text on one line"},
		{"John\u2028Ann", "name has the control character U+2028; want text on one line"},
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
	require.Equal(t, map[string]any{"req": "John", "res": "Hello John"}, call("John").Tags())
	require.Equal(t, true, call("").Tag("error"))
}

// FuzzHello calls the handler directly, also with names that gRPC cannot transport. Hello must
// accept names of 1 to 256 bytes of UTF-8 on one line, and reject all other names.
func FuzzHello(f *testing.F) {
	for _, name := range []string{
		"John", "José", "山田 太郎", "👩🏽‍🚀", "", "a\nb", "\x1b[2J", "\u0085", "\u2029", "\x00", "\x7f", "\xff", "\xed\xa0\x80", "\u202e", "%s%n",
		strings.Repeat("x", handler.MaxNameBytes), strings.Repeat("x", handler.MaxNameBytes+1), strings.Repeat("é", handler.MaxNameBytes/2),
	} {
		f.Add(name)
	}
	log.SetLevel(log.Level(math.MaxInt)) // turns logging off: Hello logs each call
	b := &handler.Basis{ID: id}
	f.Fuzz(func(t *testing.T, name string) {
		tracer := mocktracer.New()
		ctx := opentracing.ContextWithSpan(context.Background(), tracer.StartSpan("parent"))
		rsp := new(proto.Response)
		err := b.Hello(ctx, &proto.Request{Name: name}, rsp)
		greets := len(name) >= 1 && len(name) <= handler.MaxNameBytes && utf8.ValidString(name) &&
			!regexp.MustCompile(`[\p{Cc}\p{Zl}\p{Zp}]`).MatchString(name)
		if greets {
			require.NoError(t, err)
			require.Equal(t, "Hello "+name, rsp.Msg)
		} else {
			require.Error(t, err)
			require.Equal(t, int32(400), errors.Parse(err.Error()).Code)
			require.Empty(t, rsp.Msg)
		}
		spans := tracer.FinishedSpans()
		require.Len(t, spans, 1)
		require.Equal(t, !greets, spans[0].Tag("error") == true)
	})
}
