// Package docker tests docker-compose.yml on a real Docker engine. Each script in testdata/script
// is a terminal session. The scripts run only with the flag -docker. "make e2e-docker" sets this
// flag.
package docker

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/browser"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/project"
	"github.com/gomicroexample/basis/dev/internal/timeline"
)

// patience is the maximum time to wait for a condition. A swarm takes longest, because its DNS
// server resolves a service's name only after the containers are healthy.
const patience = 2 * time.Minute

// pollInterval is the interval between two checks of a condition.
const pollInterval = 200 * time.Millisecond

// composeProject is the Compose project of the tests. It distinguishes the tests' containers from
// the user's own containers.
const composeProject = "basis-e2e"

var docker = flag.Bool("docker", false, "run the scripts, on the Docker engine that answers")

var required = flag.Bool("required", false, "fail where Chromium is missing, instead of skipping the pages")

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "1") // the scripts publish the same ports
	flag.Parse()
	os.Exit(m.Run())
}

func TestScripts(t *testing.T) {
	if !*docker {
		t.Skip(`needs a Docker engine, ports 8500, 9090 and 16686, and some minutes: "make e2e-docker"`)
	}
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	// In the scripts, "compose" is "docker compose" if installed, and "docker-compose" otherwise.
	compose := "docker-compose"
	if exec.Command("docker", "compose", "version").Run() == nil {
		compose = "docker compose"
	}
	bin := t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("COMPOSE_PROJECT_NAME", composeProject)
	if err := os.WriteFile(filepath.Join(bin, "compose"), []byte("#!/bin/sh\nexec "+compose+` "$@"`+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Cd = root
			for _, variable := range os.Environ() {
				name, value, _ := strings.Cut(variable, "=")
				if name == "HOME" || name == "COMPOSE_PROJECT_NAME" || strings.HasPrefix(name, "DOCKER_") {
					env.Setenv(name, value)
				}
			}
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition == "chromium" {
				_, err := browser.Find()
				return err == nil || *required, nil
			}
			return false, fmt.Errorf("unknown condition %q", condition)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"finally": finally,
			"urls":    urls,
			"nodes":   nodes,
			"calls":   calls,
			"reaches": reaches,
			"trace":   traced,
			"stopped": stopped,
			"health":  health,
			"updates": updates,
			"browse":  browse,
			"lookup":  lookup,
			"query":   query,
		},
	})
}

// The command "finally command [args...]" runs a command after the script has ended, even if the
// script fails.
func finally(ts *testscript.TestScript, neg bool, args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	ts.Defer(func() {
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Logf("%v: %v\n%s", args, err, out)
		}
	})
}

// The command "urls" sets $CONSUL and $JAEGER to the URLs that the last command has printed.
func urls(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range []string{"Consul", "Jaeger"} {
		m := regexp.MustCompile(name + `: (http://[^/]+)/`).FindStringSubmatch(ts.ReadFile("stdout"))
		if m == nil {
			ts.Fatalf("no URL of %s", name)
		}
		ts.Setenv(strings.ToUpper(name), m[1])
	}
}

// The command "nodes n" waits until Consul has n healthy nodes of the service, and prints their IP
// addresses, sorted.
func nodes(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	consul, err := api.NewClient(&api.Config{Address: ts.Getenv("CONSUL")})
	ts.Check(err)
	var addresses []string
	eventually(ts, patience, func() error {
		entries, _, err := consul.Health().Service("go.micro.srv.basis", "", true, nil)
		if err != nil {
			return err
		}
		addresses = nil
		for _, e := range entries {
			addresses = append(addresses, e.Service.Address)
		}
		if len(addresses) != n {
			return fmt.Errorf("nodes %v, not %d", addresses, n)
		}
		return nil
	})
	slices.Sort(addresses)
	for _, a := range addresses {
		fmt.Fprintln(ts.Stdout(), a)
	}
}

// loggedCalls returns all calls that the client has logged so far. The shell command in $LOG prints
// the client's log. If a call has failed, loggedCalls fails the script.
func loggedCalls(ts *testscript.TestScript) []load.Line {
	log, err := exec.Command("sh", "-c", ts.Getenv("LOG")).CombinedOutput()
	if err != nil {
		ts.Fatalf("%s: %v\n%s", ts.Getenv("LOG"), err, log)
	}
	all, err := load.ParseLines(string(log))
	ts.Check(err)
	for _, c := range all {
		if c.Outcome != "ok" {
			ts.Fatalf("call %d failed: %s", c.Number, c.Outcome)
		}
	}
	return all
}

// The command "calls [-alternating] n" waits until the client has made n more calls. It fails the
// script if one of the client's calls so far has failed. With -alternating, it also fails the
// script if two consecutive new calls went to the same node.
func calls(ts *testscript.TestScript, neg bool, args []string) {
	alternating := args[0] == "-alternating"
	if alternating {
		args = args[1:]
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	before := len(loggedCalls(ts))
	var after []load.Line
	eventually(ts, patience, func() error {
		if after = loggedCalls(ts); len(after) < before+n {
			return fmt.Errorf("%d calls, not %d", len(after)-before, n)
		}
		return nil
	})
	for i := before + 1; alternating && i < len(after); i++ {
		if after[i].Node == after[i-1].Node {
			ts.Fatalf("calls %d and %d went to the same node, %s", i, i+1, after[i].Node)
		}
	}
	ts.Logf("%d calls, 0 failed", len(after)-before)
}

// The command "reaches n duration" waits until the client's calls so far have gone to at least n
// different nodes. If this takes longer than duration, it fails the script.
func reaches(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	within, err := time.ParseDuration(args[1])
	ts.Check(err)
	start := time.Now()
	eventually(ts, within, func() error {
		called := map[string]bool{}
		for _, c := range loggedCalls(ts) {
			called[c.Node] = true
		}
		if len(called) < n {
			return fmt.Errorf("%d nodes called, not %d", len(called), n)
		}
		return nil
	})
	ts.Logf("%d nodes called after %v", n, time.Since(start).Round(pollInterval))
}

// The command "trace n" waits for the client's next call, and then until Jaeger has n spans of the
// call's trace. It prints the spans' services and operations.
func traced(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	calls(ts, false, []string{"1"})
	all := loggedCalls(ts)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	spans, err := timeline.Await(ctx, ts.Getenv("JAEGER"), all[len(all)-1].Trace, n)
	ts.Check(err)
	for _, s := range spans {
		fmt.Fprintln(ts.Stdout(), s.Service, s.Operation)
	}
}

// The command "stopped" waits until no container of composeProject is running.
func stopped(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, patience, func() error {
		running, err := exec.Command("docker", "ps", "--filter", "label=com.docker.compose.project="+composeProject, "--format", "{{.Names}}").Output()
		if err == nil && len(running) > 0 {
			err = fmt.Errorf("still running:\n%s", running)
		}
		return err
	})
}

// The command "health state n filter" waits until "docker ps" with filter lists n containers whose
// health is state.
func health(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, patience, func() error {
		out, err := exec.Command("docker", "ps", "--filter", args[2], "--filter", "health="+args[0], "--format", "{{.Names}}: {{.Status}}").Output()
		if n := strings.Count(string(out), "\n"); err == nil && strconv.Itoa(n) != args[1] {
			err = fmt.Errorf("%d containers are %s, not %s:\n%s", n, args[0], args[1], out)
		}
		return err
	})
}

// The command "browse n" checks the pages of Jaeger and Consul in a browser. On Jaeger's search
// page it finds the client's traces, opens the newest complete trace, and prints its rows. The
// client's spans include the call's wait for the limiter, and this wait is longer than the rest of
// the call. So the client's spans must begin in the first half of the trace, and the server's spans
// in the second half. On Consul's page, the command checks that the service has n nodes whose
// checks pass.
func browse(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	inBrowser(ts, func(ctx context.Context, b *browser.Browser) {
		found, err := b.Search(ctx, ts.Getenv("JAEGER"), "go.micro.client.basis")
		ts.Check(err)
		// Skip incomplete traces: Jaeger may not have all spans of the last call yet.
		i := slices.IndexFunc(found, func(f browser.Found) bool { return f.Spans == 4 && f.Errors == 0 })
		if i < 0 {
			ts.Fatalf("no trace of four spans and no error: %+v", found)
		}
		trace, err := b.Open(ctx, found[i].ID)
		ts.Check(err)
		for _, r := range trace.Rows {
			if waited := r.Start > 0.5; waited != (r.Service == "go.micro.srv.basis") {
				ts.Fatalf("span %v begins at %.0f %% of the trace", r, 100*r.Start)
			}
		}
		printRows(ts, trace)
		_, err = b.Instances(ctx, ts.Getenv("CONSUL"), "go.micro.srv.basis", n)
		ts.Check(err)
	})
}

// The command "lookup n" looks up a trace in Jaeger's UI, and prints its rows. The trace's ID is
// the stdout of the last command. lookup first waits until Jaeger has n spans of the trace.
func lookup(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	id := strings.TrimSpace(ts.ReadFile("stdout"))
	inBrowser(ts, func(ctx context.Context, b *browser.Browser) {
		_, err := timeline.Await(ctx, ts.Getenv("JAEGER"), id, n)
		ts.Check(err)
		trace, err := b.Lookup(ctx, ts.Getenv("JAEGER"), id)
		ts.Check(err)
		printRows(ts, trace)
	})
}

// inBrowser starts a browser, and passes it to the function look.
func inBrowser(ts *testscript.TestScript, look func(context.Context, *browser.Browser)) {
	b, err := browser.Start(1200, 800)
	ts.Check(err)
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	look(ctx, b)
}

// printRows prints the service and the operation of each row on a trace's page, and "error" if the
// row has the mark of an error.
func printRows(ts *testscript.TestScript, trace browser.Trace) {
	for _, r := range trace.Rows {
		mark := ""
		if r.Error {
			mark = " error"
		}
		fmt.Fprintf(ts.Stdout(), "%s %s%s\n", r.Service, r.Operation, mark)
	}
}

// The command "updates service state" waits until the last update of service has the given state.
func updates(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, patience, func() error {
		out, err := exec.Command("docker", "service", "inspect", "--format", "{{.UpdateStatus.State}}", args[0]).Output()
		if state := strings.TrimSpace(string(out)); err == nil && state != args[1] {
			err = fmt.Errorf("the update is %s, not %s", state, args[1])
		}
		return err
	})
}

// The command "query expression sample..." waits until Prometheus returns exactly the given
// samples for expression. The samples have the form "{labels} value" and are sorted.
func query(ts *testscript.TestScript, neg bool, args []string) {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	eventually(ts, patience, func() error {
		answer.Data.Result = nil
		rsp, err := http.Get("http://127.0.0.1:9090/api/v1/query?query=" + url.QueryEscape(args[0]))
		if err != nil {
			return err
		}
		defer rsp.Body.Close()
		if err := json.NewDecoder(rsp.Body).Decode(&answer); err != nil {
			return fmt.Errorf("%s: %w", rsp.Status, err)
		}
		var samples []string
		for _, r := range answer.Data.Result {
			var labels []string
			for name, value := range r.Metric {
				if name != "__name__" {
					labels = append(labels, fmt.Sprintf("%s=%q", name, value))
				}
			}
			slices.Sort(labels)
			samples = append(samples, fmt.Sprintf("{%s} %v", strings.Join(labels, ","), r.Value[1]))
		}
		if slices.Sort(samples); !slices.Equal(samples, args[1:]) {
			return fmt.Errorf("%s is %v, not %v", args[0], samples, args[1:])
		}
		return nil
	})
}

// eventually calls condition repeatedly until condition returns nil. If this takes longer than
// patience, eventually fails the script.
func eventually(ts *testscript.TestScript, patience time.Duration, condition func() error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := backend.Until(ctx, pollInterval, condition); err != nil {
		ts.Fatalf("after %v: %v", patience, err)
	}
}
