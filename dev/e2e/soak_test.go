package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/measured"
)

var soak = flag.Duration("soak", 0, "soak the pair for so long; 0: not at all")

const (
	soakRate     = 500              // calls per second
	soakCallers  = 50               // enough callers for soakRate even on a busy machine
	replaceEvery = 20 * time.Second // interval at which the test replaces a server
	sampleEvery  = time.Second
	maxGrowth    = 1.1 // maximum growth of memory and goroutines, from the second tenth of the soak to the last tenth
)

// TestSoak makes calls for a long time, while it replaces servers. It fails if the memory or the
// goroutines of the client, or of a server that is not replaced, grow by more than maxGrowth. It
// also fails if a call fails, or if the client has more connections to nodes than there are nodes.
func TestSoak(t *testing.T) {
	needTools(t)
	if *soak == 0 {
		t.Skip(`only with -soak, as in "make soak"`)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), *soak+10*patience)
	defer cancel()
	agent, err := backend.StartConsul(ctx, consul, dir, "127.0.0.1", backend.ConsulPorts{}, nil)
	require.NoError(t, err)
	defer agent.Stop(syscall.SIGKILL)
	// With these GODEBUG settings, Go's runtime logs all goroutines every two seconds, one
	// goroutine per line.
	env := backend.Environ(append(slices.Clone(traffic), "BASIS_VERBOSE=",
		fmt.Sprintf("BASIS_RATE_LIMIT=%d", soakRate), fmt.Sprintf("BASIS_CONCURRENCY=%d", soakCallers),
		"CONSUL_HTTP_ADDR="+agent.Addr, "JAEGER_ADDRESS="+jaeger.Addr, "GODEBUG=schedtrace=2000,scheddetail=1")...)
	started := 0
	start := func(binary string) *backend.Process {
		started++
		name := fmt.Sprintf("%s-%d", binary, started)
		p, err := backend.Start(name, filepath.Join(dir, name+".log"), env, filepath.Join(plain, binary))
		require.NoError(t, err)
		t.Cleanup(func() { _ = p.Stop(syscall.SIGKILL) })
		return p
	}
	nodes := func(n int) {
		t.Helper()
		ctx, cancel := patient()
		defer cancel()
		_, err := agent.Nodes(ctx, "go.micro.srv.basis", n)
		require.NoError(t, err)
	}

	stays := start("srv")
	others := []*backend.Process{start("srv"), start("srv")}
	nodes(3)
	client := start("client")
	var alive atomic.Int32
	alive.Store(3)
	sampling, stop := context.WithTimeout(ctx, *soak)
	defer stop()
	sampled := make(chan []sample, 1)
	began := time.Now()
	go func() { sampled <- takeSamples(sampling, stays.Pid(), client.Pid(), agent.Addr, &alive) }()

	replace := time.NewTicker(replaceEvery)
	defer replace.Stop()
	replaced := 0
	for sampling.Err() == nil {
		select {
		case <-sampling.Done():
		case <-replace.C:
			alive.Add(1)
			others = append(others, start("srv"))
			nodes(4)
			require.NoError(t, others[0].Stop(term))
			others = others[1:]
			alive.Add(-1)
			nodes(3)
			replaced++
		}
	}
	samples := <-sampled
	status := client.Stop(syscall.SIGINT)
	took := time.Since(began)

	log, err := os.ReadFile(client.Log)
	require.NoError(t, err)
	made, failed := summarized(t, log, "calls"), summarized(t, log, "failed")
	require.Zero(t, failed, "calls failed: %s", regexp.MustCompile(`(?m)^client: call .*$`).FindAll(log, 10))
	require.NoError(t, status)
	require.Greater(t, float64(made), 0.9*soakRate*took.Seconds(), "calls made")
	r := measured.Row{
		Fault:   fmt.Sprintf("soak: %v at %d calls/s; one server replaced every %v", *soak, soakRate, replaceEvery),
		Allowed: "0; memory and goroutines grow by at most 10%; at most one connection per node",
		Calls:   made, Failed: failed,
	}
	for _, p := range []struct {
		process *backend.Process
		name    string
		rss     func(sample) float64
	}{
		{client, "client", func(s sample) float64 { return s.clientRSS }},
		{stays, "srv", func(s sample) float64 { return s.srvRSS }},
	} {
		early, late := mean(samples, *soak/10, *soak/5, p.rss), mean(samples, *soak*9/10, *soak, p.rss)
		log, err := os.ReadFile(p.process.Log)
		require.NoError(t, err)
		some, more := goroutines(t, log, *soak/10, *soak/5), goroutines(t, log, *soak*9/10, *soak)
		r.Note("%s: first %.1f MB, last %.1f MB; first %d goroutines, last %d", p.name, early/1e6, late/1e6, some, more)
		require.Less(t, late, maxGrowth*early, "%s: resident bytes", p.name)
		require.LessOrEqual(t, float64(more), maxGrowth*float64(some), "%s: goroutines", p.name)
	}
	most := slices.MaxFunc(samples, func(a, b sample) int { return a.connections - b.connections }).connections
	for _, s := range samples {
		require.NoError(t, s.err)
		require.LessOrEqual(t, s.connections, s.nodes, "connections of the client to nodes, after %v", s.at)
	}
	r.Note("%d servers replaced; at most %d connections", replaced, most)
	recordTo(&results, r)
}

// sample has the measurements of one moment.
type sample struct {
	at                time.Duration // time since takeSamples began
	clientRSS, srvRSS float64       // resident memory in bytes
	connections       int           // number of the client's established connections to nodes
	nodes             int           // number of running nodes
	err               error         // the error of a failed measurement
}

func takeSamples(ctx context.Context, srv, client int, consul string, alive *atomic.Int32) []sample {
	var all []sample
	began := time.Now()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
			s := sample{at: time.Since(began)}
			before := int(alive.Load())
			s.connections, s.err = connections(client, consul)
			s.nodes = max(before, int(alive.Load()))
			if s.err == nil {
				s.clientRSS, s.err = resident(client)
			}
			if s.err == nil {
				s.srvRSS, s.err = resident(srv)
			}
			all = append(all, s)
		}
	}
}

// resident returns the resident memory of a process, in bytes.
func resident(pid int) (float64, error) {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return 0, err
	}
	m, err := p.MemoryInfo()
	if err != nil {
		return 0, err
	}
	return float64(m.RSS), nil
}

// connections returns the number of established TCP connections of a process. It does not count
// connections to Consul.
func connections(pid int, consul string) (int, error) {
	all, err := psnet.ConnectionsPid("tcp", int32(pid))
	n := 0
	for _, c := range all {
		if c.Status == "ESTABLISHED" && fmt.Sprintf("%s:%d", c.Raddr.IP, c.Raddr.Port) != consul {
			n++
		}
	}
	return n, err
}

// mean returns the mean of a value of the samples between the times from and to.
func mean(samples []sample, from, to time.Duration, value func(sample) float64) float64 {
	sum, n := 0.0, 0
	for _, s := range samples {
		if s.at >= from && s.at < to {
			sum += value(s)
			n++
		}
	}
	return sum / float64(n)
}

var (
	schedLine     = regexp.MustCompile(`SCHED (\d+)ms: `)
	goroutineLine = regexp.MustCompile(`  G\d+: status=(\d+)\(`)
)

// Some of the runtime's goroutine statuses (runtime2.go): the three statuses of goroutines that
// are not in use, and the bit that is set while the garbage collector scans a goroutine.
const (
	statusIdle, statusDead, statusDeadExtra = 0, 6, 11
	statusScan                              = 0x1000
)

// goroutines returns the minimum number of goroutines of a process between the times from and to.
// log is the process's log, with the lines of GODEBUG=schedtrace,scheddetail. A call adds
// goroutines only for a moment, but leaked goroutines stay. So only leaks increase the minimum.
func goroutines(t *testing.T, log []byte, from, to time.Duration) int {
	t.Helper()
	var counts []int
	times := schedLine.FindAllSubmatchIndex(log, -1)
	for i, m := range times[:len(times)-1] {
		ms, err := strconv.Atoi(string(log[m[2]:m[3]]))
		require.NoError(t, err)
		if at := time.Duration(ms) * time.Millisecond; at < from || at >= to {
			continue
		}
		n := 0
		for _, g := range goroutineLine.FindAllSubmatch(log[m[0]:times[i+1][0]], -1) {
			status, err := strconv.Atoi(string(g[1]))
			require.NoError(t, err)
			switch status &^ statusScan {
			case statusIdle, statusDead, statusDeadExtra:
			default:
				n++
			}
		}
		counts = append(counts, n)
	}
	require.NotEmpty(t, counts)
	return slices.Min(counts)
}

// summarized returns a number from the client's summary: the number in the line that begins with
// label.
func summarized(t *testing.T, log []byte, label string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + label + ` +(\d+)`).FindSubmatch(log)
	require.NotNil(t, m, "no %s in the client's summary", label)
	n, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	return n
}
