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

// minCalls is the minimum number of calls during a fault.
const minCalls = 2000

// traffic sets the programs' variables for the scripts in testdata/faults. The client makes 250
// calls per second from eight callers. The breaker's limits are so high that the circuit does not
// open. Servers and client serve metrics.
var traffic = []string{
	"BASIS_RATE_LIMIT=250", "BASIS_CONCURRENCY=8", "BASIS_REQUESTS=0", "BASIS_VERBOSE=true",
	"BASIS_HYSTRIX_MAX_CONCURRENT=1000", "BASIS_HYSTRIX_ERROR_PERCENT=100",
	"BASIS_HYSTRIX_VOLUME=1000000", "BASIS_HYSTRIX_TIMEOUT=10s",
	"BASIS_METRICS_ADDRESS=127.0.0.1:0",
}

// faultCommands are the commands that only the scripts in testdata/faults have.
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

// TestFaults runs the scripts in testdata/faults, and prints the measurements of each script. It
// runs one script at a time, because parallel scripts would disturb each other's measurements.
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

// call is the client's report of one call, as --verbose prints it.
type call struct{ load.Line }

// parseCalls returns the calls in a client's output, in the order in which they ended.
func parseCalls(output string) ([]call, error) {
	lines, err := load.ParseLines(output)
	var all []call
	for _, c := range lines {
		all = append(all, call{c})
	}
	return all, err
}

// output is the part of the client's log that logged has read so far.
type output struct {
	read  int64 // number of bytes read
	calls []call
}

// logged returns all calls that the client has reported so far.
func (s *session) logged(ts *testscript.TestScript) []call {
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

// took returns the duration of the call's last attempt.
func (c call) took() time.Duration { return c.Latency - c.Waited }

// count returns the number of calls for which matches returns true.
func count(all []call, matches func(call) bool) int {
	n := 0
	for _, c := range all {
		if matches(c) {
			n++
		}
	}
	return n
}

// The command "fault description allowed" sets the first two columns of the script's row: the
// fault, and the failures that are allowed.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "fault description allowed")
	of(ts).row = measured.Row{Fault: args[0], Allowed: args[1]}
}

// The command "jaeger" starts a Jaeger that only this script uses, so that the script can break it.
func ownJaeger(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "jaeger")
	ctx, cancel := patient()
	defer cancel()
	j, err := backend.StartJaeger(ctx, jaegerPath, ts.MkAbs("."), backend.JaegerPorts{})
	ts.Check(err)
	of(ts).processes["jaeger"] = j.Process
	ts.Setenv("JAEGER_ADDRESS", j.Addr)
}

// The command "mark" stores the current time. A script runs it when the script breaks or repairs
// something.
func mark(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "mark")
	of(ts).mark = time.Now()
}

// The command "hold duration" waits until duration has passed since the mark. With it, a script
// lets a fault last for this time.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "hold duration")
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(time.Until(of(ts).mark.Add(d)))
}

// The command "calls n" waits until the client has reported n more calls.
func calls(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "calls n")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	n += len(s.logged(ts))
	eventually(ts, func() error {
		if made := len(s.logged(ts)); made < n {
			return fmt.Errorf("%d calls, not %d", made, n)
		}
		return nil
	})
}

// The command "failed [-after=duration] max" stops the client. If more than max of the client's
// calls failed, the command fails the script. max is a number or, with %, a percentage. With
// -after, max applies only to the calls that ended at least duration after the mark. The command
// also compares the client's metrics with the calls in the client's log.
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
	if !client.Ended() { // an earlier "failed" may have stopped the client
		endMetered(ts)
	}
	status := client.Stop(syscall.SIGINT)
	all := s.logged(ts)
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
		s.row.Note("of %[2]d calls that ended more than %[3]v after the fault, %[1]d failed", n, len(all), after)
	}
}

// endMetered stops the client, and compares the client's metrics with the calls in the client's
// log. It reads the log, then the metrics, and after the client's end the log again. The metrics
// must count at least the calls in the log at the first reading, and at most the calls at the
// second reading. Otherwise, endMetered fails the script.
func endMetered(ts *testscript.TestScript) {
	s := of(ts)
	before := slices.Clone(s.logged(ts))
	counted, countedFailed := metered(ts)
	_ = s.process(ts, "client").Stop(syscall.SIGINT) // "failed" checks the exit status
	all := s.logged(ts)
	if counted < len(before) || counted > len(all) || countedFailed < count(before, call.failed) || countedFailed > count(all, call.failed) {
		ts.Fatalf("the metrics counted %d calls and %d failed ones; the client logged %d to %d and %d to %d",
			counted, countedFailed, len(before), len(all), count(before, call.failed), count(all, call.failed))
	}
}

// metered returns the numbers of calls and of failed calls in the client's metrics.
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

// The command "rate min" looks for a period of one second in which at least min calls ended. The
// period must begin at most one second after the mark. If there is no such period, the command
// fails the script.
func rate(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "rate min")
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	best, at := 0, time.Duration(0)
	for after := time.Duration(0); after <= time.Second; after += 100 * time.Millisecond {
		from := s.mark.Add(after)
		n := count(s.logged(ts), func(c call) bool { return c.end().After(from) && !c.end().After(from.Add(time.Second)) })
		if n > best {
			best, at = n, after
		}
	}
	if best < least {
		ts.Fatalf("at most %d calls in a second that began within one of the mark, not %d", best, least)
	}
	s.row.Note("%d calls in the second that began %v after the fault", best, at)
}

// The command "slowdown percent" compares the nodes' median latency before the first fault with
// their median latency since the mark. The first fault is at the mark when the script runs slowdown
// for the first time. The command fails the script if the median has grown by more than percent and
// by more than a millisecond. For this comparison, it computes the median of each second, and uses
// the lowest. In the other seconds, the machine may have been busy with other work.
func slowdown(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "slowdown percent")
	percent, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	all := s.logged(ts)
	if s.before == nil {
		s.before = slices.DeleteFunc(slices.Clone(all), func(c call) bool { return !c.end().Before(s.mark) })
	}
	since := slices.DeleteFunc(slices.Clone(all), func(c call) bool { return c.Start.Before(s.mark) })
	before, after := lowestMedian(s.before), lowestMedian(since)
	if limit := max(before*time.Duration(100+percent)/100, before+time.Millisecond); after > limit {
		ts.Fatalf("p50 of the best second %v, before %v", after, before)
	}
	s.row.Note("p50 %v, before %v", median(since), median(s.before))
}

// lowestMedian computes the nodes' median latency for each second, and returns the lowest of these
// medians. It ignores seconds with fewer than 100 calls.
func lowestMedian(all []call) time.Duration {
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

// median returns the nodes' median latency: the median duration of the calls' last attempts.
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

// The command "within duration event" fails the script if more than duration has passed since the
// mark. It adds event and the passed time to the script's row. event is a text for the event that
// the script has just waited for.
func within(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "within duration event")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := of(ts)
	took := time.Since(s.mark)
	if took > limit {
		ts.Fatalf("%s after %v, not %v", args[1], took, limit)
	}
	s.row.Note("%s after %v", args[1], took.Round(time.Millisecond))
}

// The command "received name..." fails the script unless the named servers have received exactly as
// many calls as the client made. So it fails if the client retried a call.
func received(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "received name...")
	n := 0
	for _, name := range args {
		n += strings.Count(ts.ReadFile(name+".log"), "Yoooo! I received it")
	}
	made := len(of(ts).logged(ts))
	if n != made {
		ts.Fatalf("the servers received %d calls, the client made %d", n, made)
	}
	of(ts).row.Note("each call received once")
}

// The command "underway min" fails the script unless at least min calls were in flight at the
// mark.
func underway(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "underway min")
	least, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := of(ts)
	n := count(s.logged(ts), func(c call) bool { return c.Start.Add(c.Waited).Before(s.mark) && c.end().After(s.mark) })
	if n < least {
		ts.Fatalf("%d calls in flight, not %d", n, least)
	}
	s.row.Note("%d in flight at SIGTERM", n)
}

// The command "slowest duration" fails the script if the last attempt of a failed call took longer
// than duration. It also fails the script if calls to more than one node failed.
func slowest(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "slowest duration")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := of(ts)
	var longest time.Duration
	nodes := map[string]bool{}
	for _, c := range s.logged(ts) {
		if c.failed() {
			longest = max(longest, c.took())
			nodes[c.Node] = true
		}
	}
	if longest > limit || len(nodes) > 1 {
		ts.Fatalf("calls failed after up to %v, not %v, at nodes %v", longest, limit, slices.Collect(maps.Keys(nodes)))
	}
	s.row.Note("each failed call took at most %v", longest.Round(time.Millisecond))
}

// The command "refused duration" checks the calls that the open circuit rejected. It reads these
// calls from the stderr of the last command, a client with --verbose. It fails the script if the
// 99th percentile of their latency is longer than duration. It also fails the script if there are
// fewer than minCalls such calls.
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
		ts.Fatalf("%d calls rejected, fewer than %d", len(took), minCalls)
	}
	p99 := quantile(took, 0.99)
	if p99 > limit {
		ts.Fatalf("p99 of %d refusals %v, not %v", len(took), p99, limit)
	}
	of(ts).row.Note("%d calls rejected, p99 %v, max %v", len(took), p99, quantile(took, 1))
}

const circuitOpen = "hystrix: circuit open"

// The command "recovers" finds the first call since the mark that the circuit let through. If this
// call failed, the command fails the script.
func recovers(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "recovers")
	s := of(ts)
	since := slices.DeleteFunc(slices.Clone(s.logged(ts)), func(c call) bool { return c.Start.Before(s.mark) })
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
