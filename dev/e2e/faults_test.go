package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gomicroexample/basis/client/load"
	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/measured"
)

// minCalls is how many calls are made at least while something breaks.
const minCalls = 2000

// traffic is how the client calls in the scripts in testdata/faults: 250 times a
// second from eight callers, with the breaker out of the way. Server and client serve
// metrics.
var traffic = []string{
	"BASIS_RATE_LIMIT=250", "BASIS_CONCURRENCY=8", "BASIS_REQUESTS=0", "BASIS_VERBOSE=true",
	"BASIS_HYSTRIX_MAX_CONCURRENT=1000", "BASIS_HYSTRIX_ERROR_PERCENT=100",
	"BASIS_HYSTRIX_VOLUME=1000000", "BASIS_HYSTRIX_TIMEOUT=10s",
	"BASIS_METRICS_ADDRESS=127.0.0.1:0",
}

// faultCommands are what these scripts can say beyond all others.
var faultCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"jaeger":   ownJaeger,
	"mark":     mark,
	"hold":     hold,
	"calls":    calls,
	"failed":   failed,
	"rate":     rate,
	"slowdown": slowdown,
	"within":   within,
	"received": received,
	"underway": underway,
	"slowest":  slowest,
	"refused":  refused,
	"recovers": recovers,
}

// TestFaults runs the scripts in testdata/faults one after another, since they
// measure, and prints what each measured.
func TestFaults(t *testing.T) {
	needTools(t)
	files, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata/faults: %v", err)
	}
	cmds := maps.Clone(commands)
	maps.Copy(cmds, faultCommands)
	for _, file := range files {
		var s *session
		ok := t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error {
					setEnv(env, plain)
					env.Vars = append(env.Vars, traffic...)
					s = newSession(env, plain)
					env.Values[sessionKey{}] = s
					return nil
				},
				Cmds: cmds,
			})
		})
		if ok && s != nil {
			recordTo(&results, s.row)
		}
	}
}

// call is one that the client told of with --verbose.
type call struct{ load.Line }

// parseCalls returns the calls that a client's output tells of, in the order in
// which they ended.
func parseCalls(output string) ([]call, error) {
	told, err := load.ParseLines(output)
	var all []call
	for _, c := range told {
		all = append(all, call{c})
	}
	return all, err
}

// output is what the client has told so far, read as it grows.
type output struct {
	read  int64 // bytes of the log
	calls []call
}

// told returns the calls that the client has told of so far.
func (s *session) told(ts *testscript.TestScript) []call {
	f, err := os.Open(s.process(ts, "client").Log)
	ts.Check(err)
	defer f.Close()
	_, err = f.Seek(s.load.read, 0)
	ts.Check(err)
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	ts.Check(err)
	lines := b.Bytes()[:bytes.LastIndexByte(b.Bytes(), '\n')+1]
	s.load.read += int64(len(lines))
	more, err := parseCalls(string(lines))
	ts.Check(err)
	s.load.calls = append(s.load.calls, more...)
	return s.load.calls
}

func (c call) failed() bool { return c.Outcome != "ok" }

func (c call) end() time.Time { return c.Start.Add(c.Latency) }

// took returns how long the node took, the last one where there were several.
func (c call) took() time.Duration { return c.Latency - c.Waited }

// count returns how many of the calls are as they should be.
func count(all []call, is func(call) bool) int {
	n := 0
	for _, c := range all {
		if is(c) {
			n++
		}
	}
	return n
}

// fault description allowed names what the script breaks, and what may come of
// it.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "fault description allowed")
	of(ts).row = measured.Row{Fault: args[0], Allowed: args[1]}
}

// ownJaeger, in scripts jaeger, starts a Jaeger for this script alone, to be broken.
func ownJaeger(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "jaeger")
	ctx, cancel := patient()
	defer cancel()
	j, err := backend.StartJaeger(ctx, jaegerPath, ts.MkAbs("."), backend.JaegerPorts{})
	ts.Check(err)
	of(ts).processes["jaeger"] = j.Process
	ts.Setenv("JAEGER_ADDRESS", j.Addr)
}

// mark says that it is now that something breaks, or is whole again.
func mark(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "mark")
	of(ts).mark = time.Now()
}

// hold duration lets a fault last for so long since the mark.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "hold duration")
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(time.Until(of(ts).mark.Add(d)))
}

// calls n waits until the client has told of n more.
func calls(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "calls n")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	n += len(s.told(ts))
	until(ts, func() error {
		if told := len(s.told(ts)); told < n {
			return fmt.Errorf("%d calls, not %d", told, n)
		}
		return nil
	})
}

// failed [-after=duration] max ends the client, and wants max of its calls, or
// max% of them, to have failed at most; or of those that ended so long after the
// mark. Its metrics have to count the calls that it told of.
func failed(ts *testscript.TestScript, neg bool, args []string) {
	var after time.Duration
	if len(args) == 2 {
		var err error
		after, err = time.ParseDuration(strings.TrimPrefix(args[0], "-after="))
		ts.Check(err)
		args = args[1:]
	}
	want(ts, !neg && len(args) == 1, "failed [-after=duration] max")
	s := of(ts)
	client := s.process(ts, "client")
	if !client.Ended() { // an earlier "failed" may have ended the client
		endMetered(ts)
	}
	status := client.Stop(syscall.SIGINT)
	all := s.told(ts)
	if len(all) < minCalls {
		ts.Fatalf("%d calls, fewer than %d", len(all), minCalls)
	}
	s.row.Calls, s.row.Failed = len(all), count(all, call.failed)
	checkStatus(ts, status, strconv.Itoa(min(s.row.Failed, 1)), client.Tail())
	if after > 0 {
		all = slices.DeleteFunc(slices.Clone(all), func(c call) bool { return c.end().Before(s.mark.Add(after)) })
	}
	n := count(all, call.failed)
	limit, percent := strings.CutSuffix(args[0], "%")
	most, err := strconv.Atoi(limit)
	ts.Check(err)
	if percent {
		most = most * len(all) / 100
	}
	if n > most {
		i := slices.IndexFunc(all, call.failed)
		ts.Fatalf("%d of %d calls failed, more than %s; the first with %s", n, len(all), args[0], all[i].Outcome)
	}
	if after > 0 {
		s.row.Note("later than %[3]v after the fault, %[1]d of %[2]d calls failed", n, len(all), after)
	}
}

// endMetered ends the client. Its metrics have to count the calls that it told of: at least those
// before the metrics were read, and at most those until its end.
func endMetered(ts *testscript.TestScript) {
	s := of(ts)
	before := slices.Clone(s.told(ts))
	counted, countedFailed := metered(ts)
	_ = s.process(ts, "client").Stop(syscall.SIGINT) // "failed" checks its status
	all := s.told(ts)
	if counted < len(before) || counted > len(all) || countedFailed < count(before, call.failed) || countedFailed > count(all, call.failed) {
		ts.Fatalf("the metrics counted %d calls and %d failed ones; the client told of %d to %d and %d to %d",
			counted, countedFailed, len(before), len(all), count(before, call.failed), count(all, call.failed))
	}
}

// metered returns how many calls the client's metrics have counted, and how many of them failed.
func metered(ts *testscript.TestScript) (calls, failed int) {
	serves(ts, false, []string{"client"})
	ctx, cancel := patient()
	defer cancel()
	metrics, err := backend.Get(ctx, "http://"+ts.Getenv("METRICS")+"/metrics")
	ts.Check(err)
	for _, m := range callsTotal.FindAllSubmatch(metrics, -1) {
		n, err := strconv.ParseFloat(string(m[2]), 64)
		ts.Check(err)
		calls += int(n)
		if string(m[1]) != "success" {
			failed += int(n)
		}
	}
	return calls, failed
}

// callsTotal matches the samples of basis_calls_total.
var callsTotal = regexp.MustCompile(`(?m)^basis_calls_total\{.*outcome="(\w+)".*\} (\S+)$`)

// rate min wants so many calls in a second that began within one of the mark.
func rate(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "rate min")
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	best, at := 0, time.Duration(0)
	for after := time.Duration(0); after <= time.Second; after += 100 * time.Millisecond {
		from := s.mark.Add(after)
		n := count(s.told(ts), func(c call) bool { return c.end().After(from) && !c.end().After(from.Add(time.Second)) })
		if n > best {
			best, at = n, after
		}
	}
	if best < least {
		ts.Fatalf("at most %d calls in a second that began within one of the mark, not %d", best, least)
	}
	s.row.Note("%d calls in the second that began %v after the fault", best, at)
}

// slowdown percent wants nodes to take that much longer to answer since the mark
// than before the first mark at most. It compares the seconds in which half of
// the calls were answered soonest, since in others the machine may have had more
// to do, and does not tell less than a millisecond.
func slowdown(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "slowdown percent")
	percent, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	all := s.told(ts)
	if s.before == nil {
		s.before = slices.DeleteFunc(slices.Clone(all), func(c call) bool { return !c.end().Before(s.mark) })
	}
	since := slices.DeleteFunc(slices.Clone(all), func(c call) bool { return c.Start.Before(s.mark) })
	before, after := soonest(s.before), soonest(since)
	if limit := max(before*time.Duration(100+percent)/100, before+time.Millisecond); after > limit {
		ts.Fatalf("p50 of the best second %v, before %v", after, before)
	}
	s.row.Note("p50 %v, before %v", median(since), median(s.before))
}

// soonest returns the median of the second in which that is the lowest.
func soonest(all []call) time.Duration {
	seconds := map[int64][]call{}
	for _, c := range all {
		seconds[c.end().Unix()] = append(seconds[c.end().Unix()], c)
	}
	lowest := time.Duration(math.MaxInt64)
	for _, calls := range seconds {
		if len(calls) >= 100 {
			lowest = min(lowest, median(calls))
		}
	}
	return lowest
}

// median returns the median of how long nodes took to answer.
func median(all []call) time.Duration {
	var took []time.Duration
	for _, c := range all {
		took = append(took, c.took())
	}
	return quantile(took, 0.5)
}

func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

// within duration what wants no more time to have passed since the mark, and
// notes it as that of what has happened.
func within(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "within duration what")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := of(ts)
	took := time.Since(s.mark)
	if took > limit {
		ts.Fatalf("%s after %v, not %v", args[1], took, limit)
	}
	s.row.Note("%s after %v", args[1], took.Round(time.Millisecond))
}

// received name... wants these servers to have received each of the client's
// calls once: none was tried again.
func received(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "received name...")
	n := 0
	for _, name := range args {
		n += strings.Count(ts.ReadFile(name+".log"), "Yoooo! I received it")
	}
	made := len(of(ts).told(ts))
	if n != made {
		ts.Fatalf("the servers received %d calls, the client made %d", n, made)
	}
	of(ts).row.Note("each call received once")
}

// underway min wants so many calls to have been under way at the mark.
func underway(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "underway min")
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	n := count(s.told(ts), func(c call) bool { return c.Start.Add(c.Waited).Before(s.mark) && c.end().After(s.mark) })
	if n < least {
		ts.Fatalf("%d calls under way, not %d", n, least)
	}
	s.row.Note("%d in flight at SIGTERM", n)
}

// slowest duration wants no call to have taken longer than that to fail, and those
// that failed to have been sent to one node.
func slowest(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "slowest duration")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := of(ts)
	var longest time.Duration
	nodes := map[string]bool{}
	for _, c := range s.told(ts) {
		if c.failed() {
			longest = max(longest, c.took())
			nodes[c.Node] = true
		}
	}
	if longest > limit || len(nodes) > 1 {
		ts.Fatalf("calls failed after up to %v, not %v, at nodes %v", longest, limit, slices.Collect(maps.Keys(nodes)))
	}
	s.row.Note("each failed call within %v", longest.Round(time.Millisecond))
}

// refused duration wants 99 of 100 of the last client's calls that the open
// circuit refused to have taken no longer.
func refused(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "refused duration")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	all, err := parseCalls(ts.ReadFile("stderr"))
	ts.Check(err)
	var took []time.Duration
	for _, c := range all {
		if c.Outcome == circuitOpen {
			took = append(took, c.Latency)
		}
	}
	if len(took) < minCalls {
		ts.Fatalf("%d calls refused, fewer than %d", len(took), minCalls)
	}
	p99 := quantile(took, 0.99)
	if p99 > limit {
		ts.Fatalf("p99 of %d refusals %v, not %v", len(took), p99, limit)
	}
	of(ts).row.Note("%d calls rejected, p99 %v, max %v", len(took), p99, quantile(took, 1))
}

const circuitOpen = "hystrix: circuit open"

// recovers wants the first call since the mark that the circuit let through to
// have succeeded.
func recovers(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "recovers")
	s := of(ts)
	since := slices.DeleteFunc(slices.Clone(s.told(ts)), func(c call) bool { return c.Start.Before(s.mark) })
	slices.SortFunc(since, func(a, b call) int { return a.Start.Compare(b.Start) })
	i := slices.IndexFunc(since, func(c call) bool { return c.Outcome != circuitOpen })
	if i < 0 {
		ts.Fatalf("the circuit let none of %d calls through", len(since))
	}
	if since[i].failed() {
		ts.Fatalf("the first call that the circuit let through failed with %s", since[i].Outcome)
	}
	s.row.Note("first trial call succeeded %v after the servers were up", since[i].end().Sub(s.mark).Round(time.Millisecond))
}
