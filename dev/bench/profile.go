package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"

	"github.com/gomicroexample/basis/dev/bench/contender"
	"github.com/gomicroexample/basis/dev/internal/backend"
)

// component is a part of the programs. A function belongs to the component if the function's full
// name, which includes the import path, begins with one of the prefixes.
type component struct {
	name     string
	prefixes []string
}

const (
	basis     = "github.com/gomicroexample/basis/"
	garbage   = "garbage collector"
	stacks    = "growth of stacks"
	scheduler = "Go's scheduler"
)

// components lists the components into which the report divides the CPU time of the programs. A
// function belongs to the first component that has a prefix of the function's name. Go's own
// packages are in no component: the time of their functions belongs to the component that calls
// them.
var components = []component{
	{"callers, handler and its log line", []string{
		basis + "dev/bench/contender.", basis + "srv/handler.", basis + "internal/oneline.Writer", "github.com/micro/go-micro/util/log.",
		basis + "dev/modern.NewServer.func", "main.",
	}},
	{"tracing", []string{
		basis + "tracer.", basis + "dev/bench/contender/otelspans.", basis + "client/stack.traced",
		"github.com/uber/jaeger-client-go", "github.com/opentracing", "github.com/micro/go-plugins/wrapper/trace/",
		"go.opentelemetry.io/", "github.com/go-kit/kit/tracing/", "github.com/go-kratos/kratos/v2/middleware/tracing.",
		"github.com/zeromicro/go-zero/core/trace.", "github.com/zeromicro/go-zero/zrpc/internal/serverinterceptors.UnaryTracing",
		"github.com/zeromicro/go-zero/zrpc/internal/clientinterceptors.UnaryTracing",
	}},
	{"limiter and breaker", []string{
		basis + "client/limiter.", basis + "client/breaker.", "github.com/afex/hystrix-go/", "go.uber.org/ratelimit.",
		"github.com/micro/go-plugins/wrapper/breaker/", "github.com/micro/go-plugins/wrapper/ratelimiter/",
		"github.com/sony/gobreaker", "golang.org/x/time/rate.", "github.com/go-kit/kit/circuitbreaker.", "github.com/go-kit/kit/ratelimit.",
		"github.com/go-kratos/aegis/", "github.com/go-kratos/kratos/v2/middleware/circuitbreaker.", "github.com/go-kratos/kratos/v2/middleware/ratelimit.",
		"github.com/zeromicro/go-zero/core/breaker.", "github.com/zeromicro/go-zero/core/load.",
	}},
	{"choice of a node", []string{
		basis + "client/balancer.", "github.com/micro/go-plugins/wrapper/select/", "github.com/micro/go-micro/client/selector",
		"google.golang.org/grpc/balancer/", "github.com/go-kit/kit/sd", "github.com/go-kratos/kratos/v2/selector",
		"github.com/go-kratos/kratos/v2/transport/grpc.(*balancerPicker)", "github.com/zeromicro/go-zero/zrpc/internal/balancer/",
	}},
	{"metrics", []string{
		basis + "internal/grpcmetrics.", basis + "srv/metrics.", "github.com/prometheus/", "github.com/zeromicro/go-zero/core/metric.",
		"github.com/zeromicro/go-zero/core/stat.",
	}},
	{"framework", []string{
		basis + "srv", basis + "client/", basis + "internal/", basis + "dev/modern.", "github.com/micro/", "github.com/go-kit/kit/", "github.com/go-kratos/kratos/",
		"github.com/zeromicro/go-zero/",
	}},
	{"protobuf", []string{"google.golang.org/protobuf/", "github.com/golang/protobuf/", basis + "proto."}},
	{"gRPC and the network", []string{"google.golang.org/grpc", "golang.org/x/net/"}},
}

// componentOf returns the name of the component that the time of a sample belongs to. The time
// belongs to the component of the innermost function that has a component. If no function on the
// stack has a component, the time belongs to the scheduler.
//
// There are three exceptions. If the stack has a function of the garbage collector, the time
// belongs to the garbage collector. If the stack has the function that copies stacks, the time
// belongs to the growth of stacks. If the stack has a function of OpenTelemetry's exporters, the
// time belongs to tracing.
func componentOf(s *profile.Sample) string {
	name := scheduler
	for _, location := range s.Location {
		for _, line := range location.Line { // the innermost function first
			function := line.Function.Name
			switch {
			case strings.HasPrefix(function, "runtime.gcBgMarkWorker"), strings.HasPrefix(function, "runtime.gcAssistAlloc"),
				strings.HasPrefix(function, "runtime.bgsweep"), strings.HasPrefix(function, "runtime.bgscavenge"):
				return garbage
			case strings.HasPrefix(function, "runtime.copystack"):
				return stacks
			case strings.HasPrefix(function, "go.opentelemetry.io/otel/exporters/"):
				return "tracing" // even if the innermost function belongs to gRPC
			case name != scheduler:
				continue
			}
			for _, c := range components {
				if slices.ContainsFunc(c.prefixes, func(prefix string) bool { return strings.HasPrefix(function, prefix) }) {
					name = c.name
					break
				}
			}
		}
	}
	return name
}

// usage has the CPU time per call in each component, in microseconds. Each time is the sum of both
// processes.
type usage map[string]float64

// profiled returns the peers with flags that make their programs serve profiles. srv serves
// profiles only together with metrics.
func profiled() ([]entry, error) {
	entries := slices.Clone(peers)
	ports, err := backend.FreePorts(2 * len(entries))
	if err != nil {
		return nil, err
	}
	for i := range entries {
		e := &entries[i]
		e.callers = sixteen
		e.pprof = [2]string{net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[2*i])), net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[2*i+1]))}
		serverFlag := "-pprof="
		if e.pair {
			serverFlag = "--metrics_address="
		}
		e.server, e.client = []string{serverFlag + e.pprof[0]}, []string{"-pprof=" + e.pprof[1]}
	}
	return entries, nil
}

// profile measures the usage of each running contender p.Profiles times, and adds each usage to the
// map all, under the contender's name.
func (b *testbed) profile(ctx context.Context, p plan, all map[string][]usage) error {
	for range p.Profiles {
		for _, r := range b.running {
			u, err := r.profile(ctx, p)
			if err != nil {
				return fmt.Errorf("profiles of %s: %w", r.name, err)
			}
			all[r.name] = append(all[r.name], u)
		}
	}
	return nil
}

// profile takes a CPU profile of the client and of the server while the client makes calls.
func (r *running) profile(ctx context.Context, p plan) (usage, error) {
	var (
		both     [2]*profile.Profile
		result   contender.Result
		profiles errgroup.Group
	)
	callers := r.callers[0]
	warmup, err := r.client.load(contender.Load{Callers: callers, For: p.Warmup})
	if err != nil {
		return nil, err
	}
	seconds := max(1, int(p.Profile.Seconds()))
	for i, address := range r.pprof {
		profiles.Go(func() error {
			body, err := backend.Get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds))
			if err == nil {
				both[i], err = profile.ParseData(body)
			}
			return err
		})
	}
	// A profile may begin a little later than the load, because the HTTP request for the profile
	// takes time. So the load lasts 200 ms longer than a profile.
	result, loadErr := r.client.load(contender.Load{Callers: callers, For: time.Duration(seconds)*time.Second + 200*time.Millisecond})
	if err := errors.Join(loadErr, profiles.Wait()); err != nil {
		return nil, err
	}
	r.calls += warmup.Calls + result.Calls
	perSecond := float64(result.Calls) / result.Elapsed.Seconds()
	u := usage{}
	for _, p := range both {
		calls := perSecond * time.Duration(p.DurationNanos).Seconds()
		for _, s := range p.Sample {
			const nanoseconds = 1 // index in s.Value; index 0 is the number of samples
			u[componentOf(s)] += float64(s.Value[nanoseconds]) / 1000 / calls
		}
	}
	return u, nil
}
