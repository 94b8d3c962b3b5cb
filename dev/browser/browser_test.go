package browser

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// patience is the time limit of a test. In the first run, the builds take most of this time.
const patience = 10 * time.Minute

const (
	clientName = "go.micro.client.basis"
	srvName    = "go.micro.srv.basis"
)

// required is the flag -required. With this flag, tests fail if Chromium, Consul or Jaeger is
// missing. Without the flag, these tests are skipped.
var required = flag.Bool("required", false, "fail where Chromium, Consul or Jaeger is missing, instead of skipping tests")

func TestMain(m *testing.M) {
	flag.Parse()
	// freeport has a goroutine that runs until the process exits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/consul/sdk/freeport.checkFreedPorts"))
}

// open starts a browser, and closes it at the end of the test. If Chromium is missing, open skips
// the test, or fails the test if -required is set.
func open(t *testing.T) (context.Context, *Browser) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	b, err := Start(1200, 800)
	if errors.Is(err, ErrMissing) && !*required {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return ctx, b
}

// stage starts a Stage, and closes it at the end of the test. If Consul or Jaeger is missing, stage
// skips the test, or fails the test if -required is set.
func stage(t *testing.T, ctx context.Context) *Stage {
	t.Helper()
	s, err := NewStage(ctx, t.TempDir())
	if errors.Is(err, binaries.ErrMissing) && !*required {
		t.Skipf(`%v; "make tools" builds it`, err)
	}
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// requireWait requires that trace is the trace of a call that waited for the limiter for most of
// its duration. The spans of the server begin after this wait.
func requireWait(t *testing.T, trace Trace) {
	t.Helper()
	requireCall(t, trace)
	for i, r := range trace.Rows {
		require.False(t, r.Error, r)
		if i < 2 {
			require.Less(t, r.Start, 0.05, r)
			require.Greater(t, r.Width, 0.9, r)
		} else {
			require.Greater(t, r.Start, 0.5, r)
			require.Less(t, r.Start+r.Width, 1.01, r)
		}
	}
}

// requireFailure requires that exactly two spans have the error mark: the root span and the
// handler's span.
func requireFailure(t *testing.T, trace Trace) {
	t.Helper()
	requireCall(t, trace)
	for i, r := range trace.Rows {
		require.Equal(t, i == 0 || i == 3, r.Error, r)
	}
}

// requireCall requires that trace has the four spans of one call: two of the client and two of the
// server.
func requireCall(t *testing.T, trace Trace) {
	t.Helper()
	require.Equal(t, 2, trace.Services)
	var rows []string
	for _, r := range trace.Rows {
		rows = append(rows, r.String())
	}
	require.Equal(t, []string{
		"0 go.micro.client.basis call",
		"1 go.micro.client.basis go.micro.srv.basis.Basis.Hello",
		"2 go.micro.srv.basis go.micro.srv.basis.Basis.Hello",
		"3 go.micro.srv.basis Hello",
	}, rows)
}

// find returns the trace with the given ID from the list all. It fails the test if the list lacks
// this trace.
func find(t *testing.T, all []Found, id string) Found {
	t.Helper()
	for _, f := range all {
		if f.ID == id {
			return f
		}
	}
	require.Fail(t, "the list lacks a trace", "%s: %v", id, all)
	return Found{}
}

func TestPagesOfJaegerAndConsul(t *testing.T) {
	ctx, b := open(t)
	s := stage(t, ctx)
	story, err := s.Tell(ctx)
	require.NoError(t, err)

	found, err := b.Search(ctx, s.Jaeger.URL, clientName)
	require.NoError(t, err)
	require.Len(t, found, 5)
	both := []string{clientName + " (2)", srvName + " (2)"}
	require.Equal(t, Found{ID: story.Waited, Title: clientName + ": call", Spans: 4, Services: both}, find(t, found, story.Waited))
	require.Equal(t, Found{ID: story.Failed, Title: clientName + ": call", Spans: 4, Errors: 2, Services: both}, find(t, found, story.Failed))
	require.Equal(t, Found{ID: story.Open, Title: clientName + ": call", Spans: 2, Errors: 1, Services: both[:1]}, find(t, found, story.Open))

	trace, err := b.Open(ctx, story.Waited)
	require.NoError(t, err)
	requireWait(t, trace)

	_, err = b.Search(ctx, s.Jaeger.URL, clientName)
	require.NoError(t, err)
	trace, err = b.Open(ctx, story.Failed)
	require.NoError(t, err)
	requireFailure(t, trace)
	tags, err := b.Unfold(ctx)
	require.NoError(t, err)
	require.Equal(t, "hystrix: timeout", tags["err"])

	instances, err := b.Instances(ctx, "http://"+s.Consul.Addr, srvName, 2)
	require.NoError(t, err)
	nodes, err := s.Consul.Nodes(ctx, srvName, 2)
	require.NoError(t, err)
	var addresses []string
	for _, i := range instances {
		require.Equal(t, []string{"All service checks passing", "All node checks passing"}, i.Checks)
		require.Equal(t, "consul", i.Node, "the pictures must not show this machine's name")
		addresses = append(addresses, i.Address)
	}
	require.ElementsMatch(t, nodes, addresses)
}

// If only Go is installed, the demo still serves the pages of Jaeger's UI.
func TestDemoWithGoAlone(t *testing.T) {
	ctx, b := open(t)
	root, err := project.Root()
	require.NoError(t, err)
	dir := t.TempDir()
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./demo")
	build.Dir = filepath.Join(root, "dev")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	// This demo finds no program that "make tools" has built. On PATH, it finds only Go.
	goCommand := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "go", args...).Output()
		require.NoError(t, err)
		return string(regexp.MustCompile(`\s+$`).ReplaceAll(out, nil))
	}
	demo, err := backend.Shell("demo", filepath.Join(dir, "demo.log"), backend.Environ(
		"XDG_CACHE_HOME="+filepath.Join(dir, "cache"),
		"GOCACHE="+goCommand("env", "GOCACHE"),
		"PATH="+filepath.Join(goCommand("env", "GOROOT"), "bin"),
	), build.Dir, "exec "+filepath.Join(dir, "demo")+" -keep")
	require.NoError(t, err)
	t.Cleanup(func() { _ = demo.Stop(syscall.SIGKILL) })
	require.NoError(t, demo.WaitLog(ctx, regexp.MustCompile("Everything keeps running"), 1))
	log, err := os.ReadFile(demo.Log)
	require.NoError(t, err)
	url := regexp.MustCompile(`Jaeger UI: (http://\S+?)/?\n`).FindSubmatch(log)
	require.NotNil(t, url, "%s", log)

	found, err := b.Search(ctx, string(url[1]), clientName)
	require.NoError(t, err)
	newest := found[0] // from the demo's step that shows tracing
	require.Equal(t, Found{ID: newest.ID, Title: clientName + ": call", Spans: 4, Services: []string{clientName + " (2)", srvName + " (2)"}}, newest)
	trace, err := b.Open(ctx, newest.ID)
	require.NoError(t, err)
	requireCall(t, trace)

	// Open the traces that the demo linked to in earlier steps.
	link := func(label string) string {
		m := regexp.MustCompile(`Trace of ` + label + `: (\S+)`).FindSubmatch(log)
		require.NotNil(t, m, "%s", log)
		return string(m[1])
	}
	trace, err = b.Visit(ctx, link("the call that waited longest"))
	require.NoError(t, err)
	requireWait(t, trace)
	trace, err = b.Lookup(ctx, string(url[1]), path.Base(link("a call that timed out")))
	require.NoError(t, err)
	requireFailure(t, trace)

	require.NoError(t, demo.Stop(syscall.SIGINT))
}

func TestCloseLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	_, err := Find()
	if errors.Is(err, ErrMissing) && !*required {
		t.Skip(err)
	}
	b, err := Start(100, 100)
	require.NoError(t, err)
	family := children(t)
	require.NotEmpty(t, family)
	require.NoError(t, b.Close())
	// Some processes exit a moment after Close returns.
	require.Eventually(t, func() bool { return !slices.ContainsFunc(family, runs) }, time.Minute, pollInterval)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// runs reports whether a process exists and is not a zombie.
func runs(p *process.Process) bool {
	status, err := p.Status()
	return err == nil && !slices.Contains(status, process.Zombie)
}

// children returns all descendants of this process.
func children(t *testing.T) []*process.Process {
	var all []*process.Process
	var add func(p *process.Process)
	add = func(p *process.Process) {
		these, _ := p.Children() // returns an error if there are none
		for _, child := range these {
			all = append(all, child)
			add(child)
		}
	}
	self, err := process.NewProcess(int32(os.Getpid()))
	require.NoError(t, err)
	add(self)
	return all
}

// If the page does not show the expected text before the caller's deadline, the error contains the
// name of the action and the text of the page.
func TestErrorSaysWhatThePageShows(t *testing.T) {
	_, b := open(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<p>Under\n<p>construction")
	}))
	defer site.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := b.Instances(ctx, site.URL, "x", 2)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "waiting for 2 passing nodes in "+site.URL+"/ui/dc1/services/x: context deadline exceeded; "+
		site.URL+"/ui/dc1/services/x shows: Under construction")

	// The browser still works.
	ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = b.Picture(ctx, 50)
	require.NoError(t, err)
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CHROMIUM_BIN", "")
	_, err := Find()
	require.ErrorIs(t, err, ErrMissing)

	t.Setenv("CHROMIUM_BIN", filepath.Join(t.TempDir(), "nothing"))
	_, err = Find()
	require.ErrorContains(t, err, "CHROMIUM_BIN: ")

	path := filepath.Join(t.TempDir(), "chrome")
	require.NoError(t, os.WriteFile(path, nil, 0o755))
	t.Setenv("CHROMIUM_BIN", path)
	found, err := Find()
	require.NoError(t, err)
	require.Equal(t, path, found)
}
