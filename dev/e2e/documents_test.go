package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/markdown"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// TestDocuments does what README.md, CONTRIBUTING.md and the documents in docs
// tell their readers to do, on a copy of the project, and wants to see what they
// show. Each document is one session, whose commands are in its blocks of
// "console" with "$ " before them. After "console" there may be
//
//	terminal=NAME   another terminal than the first. The last command of a block
//	                is left running there; a block that begins without a command
//	                shows what has come since, and ^C ends what runs.
//	terminal=every  exports that are made in every terminal
//	on=REGISTRY     only where the registry is consul, or mdns
//
// and file=NAME after the language of another block writes it to a file. "..." is
// for lines that are left out. An HTML comment right before a block that begins
// with "not run:" leaves it out, and says why or what runs it instead.
//
// What differs from run to run, as in varying, may differ; a later command that
// has such a value gets the one that came in its place. The ports that documents
// name are replaced by free ones.
//
// A document with blocks that are on=mdns is gone through twice: with Consul and
// Jaeger, and with what is built into the pair.
func TestDocuments(t *testing.T) {
	root, err := project.Root()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents in docs: %v", err)
	}
	dir := t.TempDir()
	if err := copyProject(root, dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		document, err := markdown.Read(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if slices.ContainsFunc(document.Blocks, markdown.Block.Runs) {
			t.Run(name, func(t *testing.T) {
				needTools(t)
				t.Parallel()
				dir := dir
				if name == "CONTRIBUTING.md" { // which changes the project
					dir = t.TempDir()
					if err := copyProject(root, dir); err != nil {
						t.Fatal(err)
					}
				}
				follow(t, document, dir, "consul")
			})
		}
		if slices.ContainsFunc(document.Blocks, func(b markdown.Block) bool { return b.Value("on") == "mdns" }) {
			t.Run(name+" without Consul", func(t *testing.T) {
				needMulticast(t)
				follow(t, document, dir, "mdns")
			})
		}
	}
}

// needMulticast fails a test where mDNS cannot work: what is sent to a group has
// to come back to those on this machine that are in it.
func needMulticast(t *testing.T) {
	fail := func(err error) { t.Fatalf("mDNS needs a network with multicast, and this machine has none: %v", err) }
	l, err := net.ListenMulticastUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251)})
	if err != nil {
		fail(err)
	}
	defer l.Close()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: l.LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		fail(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		fail(err)
	}
	_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := l.Read(make([]byte, 5)); err != nil {
		fail(err)
	}
}

// copyProject copies what a clone of the project at root has to dir.
func copyProject(root, dir string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(root, e.Name()), filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" || e.Name() == "certs":
		case e.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		default:
			var content []byte
			if content, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, content, 0o644)
			}
		}
		if err != nil {
			return fmt.Errorf("copying the project: %w", err)
		}
	}
	return nil
}

// reader is who follows a document.
type reader struct {
	t         *testing.T
	dir, logs string // where commands run, and where their output goes
	registry  string
	env       []string
	exports   string // of every terminal
	terminals map[string]*terminal
	started   int      // commands, for the names of their logs
	replaced  []string // what the document shows and what there is, in turn
}

// terminal is one that the reader has open.
type terminal struct {
	exports string
	process *backend.Process // of the last command
	shown   expectation      // of its output
	stays   bool             // whether it was left running
}

// follow does what a document says.
func follow(t *testing.T, document *markdown.Document, dir, registry string) {
	ports, err := backend.FreePorts(len(documentPorts) + len(consulPorts) + 2)
	if err != nil {
		t.Fatal(err)
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	r := &reader{t: t, dir: dir, logs: t.TempDir(), registry: registry, terminals: map[string]*terminal{}}
	for i, port := range documentPorts {
		r.replaced = append(r.replaced, port, strconv.Itoa(ports[i]))
	}
	agent := "consul agent -dev -dns-port=-1 -grpc-port=-1 -grpc-tls-port=-1"
	for i, flag := range consulPorts {
		agent += fmt.Sprintf(" -%s=%d", flag, ports[len(documentPorts)+i])
	}
	r.replaced = append(r.replaced, "consul agent -dev -config", agent+" -config", "consul agent -dev", fmt.Sprintf("%s -http-port=%d", agent, ports[0]))
	r.env = backend.Environ(
		"PATH="+filepath.Clean(plain)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"MAKELEVEL=", "MAKEFLAGS=", // of the make that runs the tests
		"CONSUL_HTTP_ADDR="+local(0), "JAEGER_API=http://"+local(1),
		"BASIS_JAEGER_QUERY="+local(1), "BASIS_JAEGER_SPANS="+local(2), "JAEGER_ADDRESS="+local(2),
		"BASIS_JAEGER_QUERY_GRPC="+local(len(ports)-1), "BASIS_JAEGER_OTLP="+local(len(ports)-2),
	)
	defer func() {
		for _, term := range r.terminals {
			if term.process != nil {
				_ = term.process.Stop(syscall.SIGKILL)
			}
		}
	}()
	for _, b := range document.Blocks {
		if file := b.Value("file"); file != "" {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(r.replace(b.Text)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if on := b.Value("on"); b.Runs() && (on == "" || on == registry) {
			r.read(b)
		}
	}
}

// documentPorts are the ports that documents name: of Consul, Jaeger's UI and
// spans, Consul with TLS, a server, the metrics of both programs, and Prometheus.
var documentPorts = []string{"8500", "16686", "6831", "8501", "8443", "9464", "9465", "9090"}

// consulPorts are the flags for the ports of Consul that no document names.
var consulPorts = []string{"server-port", "serf-lan-port", "serf-wan-port"}

func (r *reader) replace(text string) string { return strings.NewReplacer(r.replaced...).Replace(text) }

// read does what a block says.
func (r *reader) read(b markdown.Block) {
	r.t.Helper()
	name := b.Value("terminal")
	if name == "every" {
		r.exports = strings.ReplaceAll(b.Text, prompt, "")
		return
	}
	term := r.terminals[name]
	if term == nil {
		term = &terminal{}
		r.terminals[name] = term
	}
	steps := split(b.Text)
	for i, s := range steps {
		err := r.do(term, s, name != "" && i == len(steps)-1)
		if err != nil {
			r.t.Fatalf("line %d: %s\n%v", b.Line+s.line, s.command, err)
		}
	}
}

// What a terminal shows before a command, and of Ctrl-C.
const (
	prompt    = "$ "
	interrupt = "^C\n"
)

// step is a command and the output that is shown after it. Without a command it is
// what is shown of an earlier one.
type step struct {
	command, output string
	line            int // in its block, from 1
}

func split(text string) []step {
	var steps []step
	continued := false
	n := 0
	for line := range strings.Lines(text) {
		n++
		command, ok := strings.CutPrefix(line, prompt)
		switch {
		case continued:
			steps[len(steps)-1].command += line
		case ok || line == interrupt:
			steps = append(steps, step{command: command, line: n})
		case len(steps) == 0:
			steps = append(steps, step{output: line, line: n})
		default:
			steps[len(steps)-1].output += line
		}
		continued = (ok || continued) && strings.HasSuffix(line, "\\\n")
	}
	return steps
}

// do makes a step. The output of a command that stays need not be all of it.
func (r *reader) do(term *terminal, s step, stays bool) error {
	switch {
	case s.command == "":
		return r.sees(term, anything+s.output)
	case s.command == interrupt:
		_ = term.process.Stop(syscall.SIGINT) // what its status is, is not shown
		term.stays = false
		return r.sees(term, anything+s.output)
	case term.stays:
		return errors.New("what was started in this terminal before is still running")
	case strings.HasPrefix(s.command, "export "):
		term.exports += s.command
		return nil
	case stays:
		if err := r.start(term, s.command); err != nil {
			return err
		}
		term.stays = true
		return r.sees(term, s.output)
	}
	return r.finishes(term, s)
}

// start runs a command.
func (r *reader) start(term *terminal, command string) error {
	r.started++
	log := filepath.Join(r.logs, fmt.Sprintf("%d.log", r.started))
	p, err := backend.Shell(strings.TrimSpace(command), log, r.env, r.dir, r.replace(r.exports+term.exports+command))
	if err != nil {
		return err
	}
	term.process, term.shown = p, expectation{pattern: `\A`}
	return nil
}

// sees waits until a command that stays has put out what is shown.
func (r *reader) sees(term *terminal, output string) error {
	term.shown.add(output)
	re := regexp.MustCompile(term.shown.pattern)
	ctx, cancel := patient()
	defer cancel()
	waited := term.process.WaitLog(ctx, re, 1)
	log, err := os.ReadFile(term.process.Log)
	if err != nil {
		return err
	}
	if waited != nil {
		return term.shown.differ(log)
	}
	r.learn(term.shown.values, re.FindSubmatch(log))
	return nil
}

// finishes runs a command that ends, whose output has to be what is shown. Others
// may take a moment to notice what was done before, as a registry does, so that it
// is run again for a while.
func (r *reader) finishes(term *terminal, s step) error {
	for deadline := time.Now().Add(patience / 2); ; {
		if err := r.start(term, s.command); err != nil {
			return err
		}
		ctx, cancel := patient()
		status := term.process.Wait(ctx)
		cancel()
		log, err := os.ReadFile(term.process.Log)
		if err != nil {
			return err
		}
		term.shown.add(s.output)
		m := regexp.MustCompile(term.shown.pattern + `\z`).FindSubmatch(log)
		told := strings.ReplaceAll(s.output, anything, "") != "" // of a failure, if it failed
		if m != nil && (status == nil || told) {
			r.learn(term.shown.values, m)
			return nil
		}
		differs := errors.Join(status, term.shown.differ(log))
		if time.Now().After(deadline) {
			return differs
		}
		r.t.Logf("trying %q again: %v", s.command, differs)
		time.Sleep(time.Second)
	}
}

// learn has later commands use the values that came in place of those shown.
func (r *reader) learn(values []string, came [][]byte) {
	for i, value := range values {
		is := string(came[i+1])
		r.replaced = append([]string{value, is}, r.replaced...)
		_, port, err := net.SplitHostPort(value)
		_, isPort, err2 := net.SplitHostPort(is)
		if err == nil && err2 == nil {
			r.replaced = append([]string{":" + port, ":" + isPort}, r.replaced...)
		}
	}
}

// shown is what a document shows of a command's output.
type expectation struct {
	text    string
	pattern string   // that matches what may come
	values  []string // what is in the place of the pattern's groups
}

// anything is a line that stands for any number of them.
const anything = "...\n"

// varying is what differs from run to run: a time; an ID, and the address of a
// node, which later commands may have; how long something took, with a fraction or
// in less than seconds; a rate; and the number of a call.
var varying = regexp.MustCompile(strings.Join([]string{
	`(?P<time>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d{4})?)`,
	`(?P<value>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{16}\b|(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\])(?::\d+)?)`,
	`(?P<duration>(?:\d+m)?\d+\.\d+(?:ms|µs|s)\b|\b\d+(?:ms|µs|ns)\b)`,
	`(?P<bar> *█+)`,
	`(?P<rate>\d+\.\d a second)`,
	`(?P<call>\bcall[= ]\d+)`,
}, "|"))

// patterns are for what comes in their place.
var patterns = map[string]string{
	"time":     `\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d{4})?`,
	"value":    `([0-9a-f-]{16,36}|(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\])(?::\d+)?)`,
	"duration": `(?:\d+(?:\.\d+)?(?:h|ms|m|s|µs|ns))+`,
	"bar":      ` *█+`,
	"rate":     `\d+\.\d a second`,
	"call":     `call[= ]\d+`,
}

// spaces are those of a column, as wide as what is in it.
var spaces = regexp.MustCompile(`  +`)

// add adds lines of output.
func (s *expectation) add(output string) {
	s.text += output
	for line := range strings.Lines(output) {
		if line == anything {
			s.pattern += `(?:.*\n)*?`
			continue
		}
		rest := 0
		for _, m := range varying.FindAllStringSubmatchIndex(line, -1) {
			s.literal(line[rest:m[0]])
			for i, name := range varying.SubexpNames() {
				if name != "" && m[2*i] >= 0 {
					s.pattern += patterns[name]
					if name == "value" {
						s.values = append(s.values, line[m[0]:m[1]])
					}
				}
			}
			rest = m[1]
		}
		s.literal(line[rest:])
	}
}

func (s *expectation) literal(text string) {
	s.pattern += spaces.ReplaceAllString(regexp.QuoteMeta(text), " +")
}

// differ returns an error that shows how output is not what is shown.
func (s *expectation) differ(output []byte) error {
	return fmt.Errorf("%s", diff.Diff("shown", []byte(s.text), "came", output))
}

// What is shown holds for outputs that differ in nothing but what varies.
func TestShown(t *testing.T) {
	for _, test := range []struct {
		shown, came string
		holds       bool
	}{
		{"Hello John\n", "Hello John\n", true},
		{"Hello John\n", "Hello Jim\n", false},
		{"Hello John\n", "Hello John\nHello John\n", false},
		{"one\n...\nfour\n", "one\ntwo\nthree\nfour\n", true},
		{"one\n...\nfour\n", "two\nfour\n", false},
		{"2026/11/22 17:03:52 x\n", "2031/01/02 00:00:00 x\n", true},
		{"start=2026-11-22T17:06:20.566Z\n", "start=2031-01-02T00:00:00.000Z\n", true},
		{"node=192.0.2.2:33629\n", "node=[fd00::2]:1\n", true},
		{"  192.0.2.2:36339                5\n", "  10.0.0.1:80                    5\n", true},
		{"  192.0.2.2:36339                5\n", "  10.0.0.1:80                    4\n", false},
		{"trace=22b9df22a49a60f2\n", "trace=0000000000000001\n", true},
		{"basis-8a4ba5d5-7d4f-4f0c-a5a7-2f0f4e1c35a1\n", "basis-c2b7f1de-90a4-4a53-b4f1-5f1d2f7a9e44\n", true},
		{"latency=1.002732s waited=118µs\n", "latency=998ms waited=1m0.5s\n", true},
		{"Trying again every 1s\n", "Trying again every 2s\n", false},
		{"calls      10 in 11.2ms, 949.4 a second\n", "calls      10 in 1s, 9.9 a second\n", true},
		{"calls      10 in 11.2ms, 949.4 a second\n", "calls      9 in 1s, 9.9 a second\n", false},
		{"client: call 4: hystrix: timeout\n", "client: call 5: hystrix: timeout\n", true},
	} {
		var s expectation
		s.add(test.shown)
		if holds := regexp.MustCompile(`\A` + s.pattern + `\z`).MatchString(test.came); holds != test.holds {
			t.Errorf("%q of what is shown as %q: %v, not %v", test.came, test.shown, holds, test.holds)
		}
	}
}
