package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
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

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// faster is the factor by which quicken shortens the durations for the scripts' Prometheus. The
// scripts use the shipped configuration and rules with a tenth of each duration. So Prometheus
// scrapes targets and evaluates rules every half second, and computes rates over 6 s. If an alert
// has "for: 1m" in the shipped rules, it has 6 s in the scripts.
const faster = 10

// durations matches the durations in a configuration and in rules: intervals, ranges, and the
// "for" of an alert.
var durations = regexp.MustCompile(`(_interval: |\[|for: )(\d+[ms])`)

// quicken divides the durations in text by faster.
func quicken(text string) (string, error) {
	var err error
	text = durations.ReplaceAllStringFunc(text, func(match string) string {
		m := durations.FindStringSubmatch(match)
		d, parseErr := time.ParseDuration(m[2])
		if parseErr != nil {
			err = parseErr
		}
		return fmt.Sprintf("%s%dms", m[1], (d / faster).Milliseconds())
	})
	return text, err
}

// The command "prometheus job=address..." starts a Prometheus that scrapes the given addresses. The
// command waits until Prometheus has scraped each address. Prometheus has the shipped configuration
// and rules with shorter durations; see faster. It starts with an empty database. The process has
// the name "prometheus".
func prometheus(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "prometheus job=address...")
	root, err := project.Root()
	ts.Check(err)
	var jobs strings.Builder
	for _, arg := range args {
		job, address, ok := strings.Cut(arg, "=")
		want(ts, ok, "prometheus job=address...")
		fmt.Fprintf(&jobs, "  - job_name: %s\n    static_configs: [{targets: [%q]}]\n", job, address)
	}
	// Replace the shipped targets, because they discover containers.
	const targets = "scrape_configs:\n"
	for _, name := range []string{"prometheus.yml", "rules.yml"} {
		shipped, err := os.ReadFile(filepath.Join(root, "dev", "prometheus", name))
		ts.Check(err)
		text, err := quicken(string(shipped))
		ts.Check(err)
		if before, _, ok := strings.Cut(text, targets); ok {
			text = before + targets + jobs.String()
		}
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
	ts.Check(os.RemoveAll(ts.MkAbs("prometheus.data")))
	ports, err := backend.FreePorts(1)
	ts.Check(err)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	s := of(ts)
	s.processes["prometheus"], err = backend.Start("prometheus", ts.MkAbs("prometheus.log"), backend.Environ(), filepath.Join(s.bin, "prometheus"),
		"--config.file="+ts.MkAbs("prometheus.yml"), "--storage.tsdb.path="+ts.MkAbs("prometheus.data"), "--web.listen-address="+addr)
	ts.Check(err)
	ts.Setenv("PROMETHEUS", "http://"+addr)
	query(ts, false, []string{"sum(up)", strconv.Itoa(len(args))})
}

// ask sends a GET request to the API of the script's Prometheus, and decodes the response's data
// into data.
func ask(ts *testscript.TestScript, path string, data any) error {
	ctx, cancel := patient()
	defer cancel()
	body, err := backend.Get(ctx, ts.Getenv("PROMETHEUS")+"/api/v1/"+path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, &struct{ Data any }{data})
}

// The command "query expression value" waits until Prometheus returns exactly one sample for
// expression, with the given value.
func query(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "query expression value")
	var answer struct {
		Result []struct{ Value [2]any }
	}
	eventually(ts, func() error {
		answer.Result = nil
		if err := ask(ts, "query?query="+url.QueryEscape(args[0]), &answer); err != nil {
			return err
		}
		if len(answer.Result) != 1 || answer.Result[0].Value[1] != args[1] {
			return fmt.Errorf("%s is %v, not %s", args[0], answer.Result, args[1])
		}
		return nil
	})
}

// The command "firing [alert...]" waits until exactly the given alerts fire. Without arguments, it
// waits until no alert fires.
func firing(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg, "firing [alert...]")
	slices.Sort(args)
	var answer struct {
		Alerts []struct {
			State       string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
	start := time.Now()
	eventually(ts, func() error {
		answer.Alerts = nil
		if err := ask(ts, "alerts", &answer); err != nil {
			return err
		}
		names := []string{}
		for _, a := range answer.Alerts {
			if a.State == "firing" {
				names = append(names, a.Labels["alertname"])
			}
		}
		slices.Sort(names)
		if names = slices.Compact(names); !slices.Equal(names, args) {
			return fmt.Errorf("%v fire, not %v", names, args)
		}
		return nil
	})
	for _, a := range answer.Alerts {
		ts.Logf("%s %s: %s", a.State, a.Labels["alertname"], a.Annotations["summary"])
	}
	ts.Logf("after %v", time.Since(start).Round(time.Millisecond))
}

// eventually calls condition repeatedly until condition returns nil. If this takes longer than
// patience, eventually fails the script.
func eventually(ts *testscript.TestScript, condition func() error) {
	ctx, cancel := patient()
	defer cancel()
	if err := backend.Until(ctx, 50*time.Millisecond, condition); err != nil {
		ts.Fatalf("after %v: %v", patience, err)
	}
}

// The command "serves name" sets $METRICS to the address on which a process serves its metrics.
func serves(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "serves name")
	on := regexp.MustCompile(`Metrics on http://(\S+)/metrics`)
	ctx, cancel := patient()
	defer cancel()
	p := of(ts).process(ts, args[0])
	ts.Check(p.WaitLog(ctx, on, 1))
	log, err := os.ReadFile(p.Log)
	ts.Check(err)
	all := on.FindAllSubmatch(log, -1)
	ts.Setenv("METRICS", string(all[len(all)-1][1]))
}

// The command "free variable..." sets each variable to a free address of this host. Usually, the
// kernel does not use the ports of these addresses for outgoing connections; see backend.FreePorts.
// So an address stays free until a program listens on it.
func free(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "free variable...")
	ports, err := backend.FreePorts(len(args))
	ts.Check(err)
	for i, variable := range args {
		ts.Setenv(variable, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])))
	}
}

// The command "sink address" listens for spans on a UDP address, and drops the spans.
func sink(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "sink address")
	c, err := net.ListenPacket("udp", args[0])
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			if _, _, err := c.ReadFrom(b); err != nil {
				return // closed
			}
		}
	}()
}

// TestRules runs promtool on the files that docker-compose.metrics.yml mounts. promtool checks the
// configuration and the rules, and runs the tests of the rules. Then TestRules renames one rule at
// a time. The tests of the rules must then fail; otherwise, they do not cover this rule.
func TestRules(t *testing.T) {
	needTools(t)
	t.Parallel()
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "dev", "prometheus"))); err != nil {
		t.Fatal(err)
	}
	promtool := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(race, "promtool"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "--lint=all", "--lint-fatal", "rules.yml"},
		{"test", "rules", "rules_test.yml"},
	} {
		if out, err := promtool(args...); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}

	path := filepath.Join(dir, "rules.yml")
	rules, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^      - (?:record|alert): (.+)$`).FindAllSubmatchIndex(rules, -1)
	if len(names) == 0 {
		t.Fatal("no rules")
	}
	for _, at := range names {
		name := string(rules[at[2]:at[3]])
		without := slices.Concat(rules[:at[2]], []byte("another"), rules[at[3]:])
		if err := os.WriteFile(path, without, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := promtool("test", "rules", "rules_test.yml"); err == nil {
			t.Errorf("the rules' tests pass without %s:\n%s", name, out)
		}
	}
}
