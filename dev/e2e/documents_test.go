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

// TestDocuments runs the commands in README.md, CONTRIBUTING.md and the documents in docs, on a
// copy of the project. It compares their output with the output that the document shows. The
// commands are in blocks of the language "console", after the prompt "$ ". All blocks of a document
// belong to one session. After "console", these options may follow:
//
//	terminal=NAME   Run the block in the terminal NAME instead of the first terminal. The block's
//	                last command keeps running. A later block for NAME that begins without a
//	                command shows more output of this command. The line ^C stops the command.
//	terminal=every  Run the block's exports in every terminal.
//	on=REGISTRY     Run the block only with the registry consul or mdns.
//
// A block of another language with file=NAME is written to the file NAME. A line "..." stands for
// any lines of output. To skip a block, put an HTML comment that begins with "not run:" right
// before the block. The comment says why the block is skipped, or what runs it instead.
//
// Values that differ from run to run are allowed to differ; see varying. If a later command
// contains such a value of the document, TestDocuments replaces it with the actual value.
// TestDocuments also replaces the ports in the documents with free ports.
//
// TestDocuments runs a document with on=mdns blocks twice: once with Consul and Jaeger, and once
// with the mDNS registry.
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
				if name == "CONTRIBUTING.md" { // its commands change the project's files
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

// needMulticast fails a test if mDNS cannot work on this machine. mDNS needs multicast: a packet
// to a group must reach the group's members on the same machine.
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

// copyProject copies the project at root to dir. It leaves out the hidden files and directories at
// root. It also leaves out the directories bin and certs, because a clone of the project does not
// have them.
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

// reader runs the commands of one document.
type reader struct {
	t         *testing.T
	dir, logs string // the working directory of the commands, and the directory of their logs
	registry  string
	env       []string
	exports   string // the exports for every terminal
	terminals map[string]*terminal
	started   int      // number of commands started so far; the names of the logs contain it
	replaced  []string // pairs for strings.NewReplacer: the document's value, and the actual value
}

// terminal is a terminal that the reader has open.
type terminal struct {
	exports string
	process *backend.Process // the last command
	shown   expectation      // the document's output of the last command
	stays   bool             // whether the last command keeps running
}

// follow runs the commands of a document in dir, with the given registry.
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
		"MAKELEVEL=", "MAKEFLAGS=", // unset the values of the make that runs the tests
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
			r.runBlock(b)
		}
	}
}

// documentPorts are the ports in the documents: Consul, Jaeger's UI, Jaeger's spans, Consul with
// TLS, a server, the metrics of both programs, and Prometheus.
var documentPorts = []string{"8500", "16686", "6831", "8501", "8443", "9464", "9465", "9090"}

// consulPorts are Consul's flags for the ports that no document mentions.
var consulPorts = []string{"server-port", "serf-lan-port", "serf-wan-port"}

func (r *reader) replace(text string) string { return strings.NewReplacer(r.replaced...).Replace(text) }

// runBlock runs the commands of a block.
func (r *reader) runBlock(b markdown.Block) {
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
		err := r.runStep(term, s, name != "" && i == len(steps)-1)
		if err != nil {
			r.t.Fatalf("line %d: %s\n%v", b.Line+s.line, s.command, err)
		}
	}
}

// prompt is the text before a command in a terminal. interrupt is the line that a terminal shows
// for Ctrl-C.
const (
	prompt    = "$ "
	interrupt = "^C\n"
)

// step is a command and the output that the document shows after it. If a step has no command, its
// output continues the output of the terminal's last command.
type step struct {
	command, output string
	line            int // line number in the block, from 1
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

// runStep runs a step in term. If stays is true, the command keeps running, and the document may
// show only the beginning of the command's output.
func (r *reader) runStep(term *terminal, s step, stays bool) error {
	switch {
	case s.command == "":
		return r.awaitOutput(term, anything+s.output)
	case s.command == interrupt:
		_ = term.process.Stop(syscall.SIGINT) // the document does not show the exit status
		term.stays = false
		return r.awaitOutput(term, anything+s.output)
	case term.stays:
		return errors.New("the command that this terminal started before is still running")
	case strings.HasPrefix(s.command, "export "):
		term.exports += s.command
		return nil
	case stays:
		if err := r.start(term, s.command); err != nil {
			return err
		}
		term.stays = true
		return r.awaitOutput(term, s.output)
	}
	return r.runToEnd(term, s)
}

// start starts a command in the background.
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

// awaitOutput waits until a command that keeps running has printed the shown output.
func (r *reader) awaitOutput(term *terminal, output string) error {
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

// runToEnd runs a command until the command exits, and compares its output with the document's
// output. If the document shows no output, the command must also exit with status 0. On a failure,
// runToEnd runs the command again every second, for up to half of patience. The reason is that the
// effect of an earlier command may take a moment, for example a registration.
func (r *reader) runToEnd(term *terminal, s step) error {
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
		showsOutput := strings.ReplaceAll(s.output, anything, "") != "" // a command may fail if the document shows its output
		if m != nil && (status == nil || showsOutput) {
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

// learn makes later commands use the actual values instead of the document's values. values are the
// document's values. match is what an expectation's pattern has matched in the actual output: its
// groups are the actual values, in the same order.
func (r *reader) learn(values []string, match [][]byte) {
	for i, shown := range values {
		actual := string(match[i+1])
		r.replaced = append([]string{shown, actual}, r.replaced...)
		_, shownPort, err := net.SplitHostPort(shown)
		_, actualPort, err2 := net.SplitHostPort(actual)
		if err == nil && err2 == nil {
			r.replaced = append([]string{":" + shownPort, ":" + actualPort}, r.replaced...)
		}
	}
}

// expectation is the output of a command as the document shows it.
type expectation struct {
	text    string
	pattern string   // a regular expression that matches the allowed outputs
	values  []string // the document's values, one for each group in pattern
}

// anything is the line that stands for any number of lines.
const anything = "...\n"

// varying matches the parts of an output that differ from run to run. Its groups have names. value
// is an ID or the address of a node, which later commands may contain. duration has a fraction or a
// unit below seconds. bar is a bar in a picture of a trace. call is the number of a call.
var varying = regexp.MustCompile(strings.Join([]string{
	`(?P<time>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d{4})?)`,
	`(?P<value>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{16}\b|(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\])(?::\d+)?)`,
	`(?P<duration>(?:\d+m)?\d+\.\d+(?:ms|µs|s)\b|\b\d+(?:ms|µs|ns)\b)`,
	`(?P<bar> *█+)`,
	`(?P<rate>\d+\.\d a second)`,
	`(?P<call>\bcall[= ]\d+)`,
}, "|"))

// patterns has a regular expression for each group of the expression varying. It matches the text
// in the actual output.
var patterns = map[string]string{
	"time":     `\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d{4})?`,
	"value":    `([0-9a-f-]{16,36}|(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\])(?::\d+)?)`,
	"duration": `(?:\d+(?:\.\d+)?(?:h|ms|m|s|µs|ns))+`,
	"bar":      ` *█+`,
	"rate":     `\d+\.\d a second`,
	"call":     `call[= ]\d+`,
}

// spaces matches the spaces between columns. Their number depends on the width of the values.
var spaces = regexp.MustCompile(`  +`)

// add appends lines of output, as the document shows them, to the expectation.
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

// differ returns an error with the differences between the document's output and the actual output.
func (s *expectation) differ(output []byte) error {
	return fmt.Errorf("%s", diff.Diff("shown", []byte(s.text), "actual", output))
}

// An expectation matches an output that differs from the document only in varying values.
func TestShown(t *testing.T) {
	for _, test := range []struct {
		shown, actual string
		matches       bool
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
		if matches := regexp.MustCompile(`\A` + s.pattern + `\z`).MatchString(test.actual); matches != test.matches {
			t.Errorf("output %q, in the document %q: %v, not %v", test.actual, test.shown, matches, test.matches)
		}
	}
}
