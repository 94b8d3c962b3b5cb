package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	micro "github.com/micro/go-micro"
	microclient "github.com/micro/go-micro/client"
	grpcclient "github.com/micro/go-micro/client/grpc"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/config/cmd"
	"github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/metadata"
	"github.com/micro/go-micro/registry"
	registrymemory "github.com/micro/go-micro/registry/memory"
	ocplugin "github.com/micro/go-plugins/wrapper/trace/opentracing"
	opentracing "github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/stretchr/testify/require"
	"github.com/uber/jaeger-client-go"

	"github.com/gomicroexample/basis/proto"
)

// The tests in this file show what go-micro and its plugins do without the stack. The stack fixes
// this behavior or relies on it.

// fake is a client whose calls run a function of the test.
type fake struct {
	microclient.Client
	call func(context.Context) error
}

func (f *fake) Call(ctx context.Context, _ microclient.Request, _ any, _ ...microclient.CallOption) error {
	return f.call(ctx)
}

// through wraps a client with wrap, and calls Hello on the result. The inner client runs the
// function call.
func through(ctx context.Context, wrap microclient.Wrapper, call func(context.Context) error) error {
	c := wrap(&fake{microclient.NewClient(), call})
	_, err := proto.NewBasisService(serviceName, c).Hello(ctx, new(proto.Request))
	return err
}

// By default, a go-micro service speaks mucp and not gRPC. It uses mDNS and not Consul.
func TestStockServiceSpeaksItsOwnProtocolAndUsesMDNS(t *testing.T) {
	s := micro.NewService()
	require.Equal(t, "mucp", s.Server().String())
	require.Equal(t, "mucp", s.Client().String())
	require.Equal(t, "mdns", s.Options().Registry.String())
}

// In one WrapClient option, the first wrapper is the outermost wrapper. With several WrapClient
// options, the wrapper of the last option is the outermost wrapper.
func TestStockOrderOfWrappers(t *testing.T) {
	var passed []string
	named := func(name string) microclient.Wrapper {
		return func(c microclient.Client) microclient.Client {
			return &fake{c, func(ctx context.Context) error {
				passed = append(passed, name)
				return c.Call(ctx, nil, nil)
			}}
		}
	}
	for _, test := range []struct {
		opts []micro.Option
		want []string
	}{
		{[]micro.Option{micro.WrapClient(named("first"), named("second"))}, []string{"first", "second"}},
		{[]micro.Option{micro.WrapClient(named("first")), micro.WrapClient(named("second"))}, []string{"second", "first"}},
	} {
		passed = nil
		opts := micro.Options{Client: &fake{call: func(context.Context) error { return nil }}}
		for _, o := range test.opts {
			o(&opts)
		}
		require.NoError(t, opts.Client.Call(context.Background(), nil, nil))
		require.Equal(t, test.want, passed)
	}
}

// A flag that selects a client removes the wrappers that the program set before it parsed the
// flags.
func TestStockFlagsDropWrappers(t *testing.T) {
	args := os.Args
	defer func() { os.Args = args }()
	os.Args = []string{"client", "--client=grpc"}

	wrapped := false
	s := micro.NewService(
		micro.Cmd(cmd.NewCmd()),
		micro.WrapClient(func(c microclient.Client) microclient.Client {
			return &fake{c, func(context.Context) error { wrapped = true; return nil }}
		}),
	)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // there is no server to call
	call := func() error {
		_, err := proto.NewBasisService(serviceName, s.Client()).Hello(ctx, new(proto.Request), microclient.WithAddress("127.0.0.1:1"))
		return err
	}
	require.NoError(t, call())
	require.True(t, wrapped)

	wrapped = false
	s.Init()
	require.Equal(t, "grpc", s.Client().String())
	require.Error(t, call())
	require.False(t, wrapped)
}

// By default, go-micro retries a call once if it failed with a 500 or a timeout. It does not retry
// a call that failed with another error.
func TestStockRetries(t *testing.T) {
	r := registrymemory.NewRegistry()
	require.NoError(t, r.Register(&registry.Service{
		Name: serviceName, Version: "1", Nodes: []*registry.Node{{Id: "a", Address: "127.0.0.1:1"}},
	}))
	for code, want := range map[int32]int{400: 1, 408: 2, 500: 2, 503: 1} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			attempts := 0
			c := grpcclient.NewClient(
				microclient.Registry(r),
				microclient.Selector(selector.NewSelector(selector.Registry(r))),
				microclient.WrapCall(func(microclient.CallFunc) microclient.CallFunc {
					return func(context.Context, *registry.Node, microclient.Request, any, microclient.CallOptions) error {
						attempts++
						return errors.New(serviceName, "oops", code)
					}
				}),
			)
			_, err := proto.NewBasisService(serviceName, c).Hello(context.Background(), new(proto.Request))
			require.Error(t, err)
			require.Equal(t, want, attempts)
		})
	}
}

// The plugin does not mark the span of a failed call as failed.
func TestStockSpansAreNotMarked(t *testing.T) {
	tr := mocktracer.New()
	require.Error(t, through(context.Background(), ocplugin.NewClientWrapper(tr), func(context.Context) error {
		return errors.InternalServerError(serviceName, "oops")
	}))
	spans := tr.FinishedSpans()
	require.Len(t, spans, 1)
	require.Empty(t, spans[0].Tags())
	require.Empty(t, spans[0].Logs())
}

// The test runs the lines of the article's client. The article's client does not set a global
// tracer. So the span "call" is never reported, and Inject adds nothing to the metadata.
// go-plugins' opentracing wrapper starts a new trace with its own span, reports this span, and
// injects it.
func TestStockInjectionIsUnused(t *testing.T) {
	reporter := jaeger.NewInMemoryReporter()
	tr, closer := jaeger.NewTracer(clientName, jaeger.NewConstSampler(true), reporter)
	defer closer.Close()

	span, ctx := opentracing.StartSpanFromContext(context.Background(), "call")
	md := metadata.Metadata{}
	require.NoError(t, opentracing.GlobalTracer().Inject(span.Context(), opentracing.TextMap, opentracing.TextMapCarrier(md)))
	require.Empty(t, md)
	ctx = metadata.NewContext(opentracing.ContextWithSpan(ctx, span), md)

	require.NoError(t, through(ctx, ocplugin.NewClientWrapper(tr), func(ctx context.Context) error {
		md, _ = metadata.FromContext(ctx)
		return nil
	}))
	span.Finish()
	spans := reporter.GetSpans()
	require.Len(t, spans, 1)
	own := spans[0].(*jaeger.Span)
	require.Equal(t, serviceName+".Basis.Hello", own.OperationName())
	require.Zero(t, own.SpanContext().ParentID())
	require.Equal(t, own.String(), md["uber-trace-id"])
}
