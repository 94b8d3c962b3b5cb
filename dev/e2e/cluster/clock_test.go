//go:build linux

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// steppingClock is a file for Go's package time. A client that is built with this file steps its
// wall clock back by an hour. The variable CLOCK_STEPS_BACK_AT sets the time of the step, in
// seconds since 1970. Other means do not work: all namespaces of Linux share one wall clock, and
// faketime replaces libc, which Go does not use.
const steppingClock = `package time

import "syscall"

var stepsBackAt = func() (at int64) {
	text, _ := syscall.Getenv("CLOCK_STEPS_BACK_AT")
	for _, digit := range text {
		at = 10*at + int64(digit-'0')
	}
	return at
}()

func steppedNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if stepsBackAt != 0 && sec >= stepsBackAt {
		sec -= 3600
	}
	return sec, nsec, mono
}
`

// buildStepping builds the client in root with steppingClock, and returns the client's path.
func buildStepping(root string) (string, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time")
	source, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return "", err
	}
	const head = "func Now() Time {\n\tsec, nsec, mono := "
	patched := bytes.Replace(source, []byte(head+"runtimeNow()"), []byte(head+"steppedNow()"), 1)
	if bytes.Equal(source, patched) {
		return "", errors.New("time.Now of this version of Go differs from the version that steppingClock expects")
	}
	files := map[string]string{}
	for name, text := range map[string][]byte{"time.go": patched, "stepping.go": []byte(steppingClock)} {
		files[filepath.Join(folder, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o644); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "steppingclient")
	build := exec.Command("go", "build", "-overlay", file, "-o", path, "./client")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building a client whose clock steps: %w: %s", err, out)
	}
	return path, nil
}

// The command "clock duration" affects the clients that the script starts after this command. When
// duration has passed, the wall clocks of these clients step back by an hour. The command "clock",
// without an argument, waits until the clocks have stepped back.
func clock(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) <= 1, "clock [duration]")
	s := of(ts)
	if len(args) == 0 {
		want(ts, s.stepsAt.After(time.Now()), "clock, before the clock steps")
		time.Sleep(time.Until(s.stepsAt) + time.Second)
		return
	}
	root, err := rootDir()
	ts.Check(err)
	s.program, err = buildStepping(root)
	ts.Check(err)
	s.stepsAt = time.Now().Add(duration(ts, args[0])).Truncate(time.Second)
}

// The command "opened" waits until each client's circuit is open.
func opened(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 0, "opened")
	for _, c := range of(ts).clients {
		eventually(ts, patience, func() error {
			all := c.logged(ts)
			if len(all) == 0 || all[len(all)-1].Outcome != "hystrix: circuit open" {
				return errors.New("the circuit is not open")
			}
			return nil
		})
	}
}

// The command "recovers duration" fails unless a call of each client succeeds within duration. It
// adds the passed time to the script's row.
func recovers(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "recovers duration")
	s := of(ts)
	before := map[*client]int{}
	for _, c := range s.clients {
		before[c] = len(c.logged(ts))
	}
	began := time.Now()
	for _, c := range s.clients {
		eventually(ts, duration(ts, args[0]), func() error {
			for _, k := range c.logged(ts)[before[c]:] {
				if !k.failed() {
					return nil
				}
			}
			return fmt.Errorf("no answer; the log of the client on %s ends:\n%s", c.host.Name, c.Tail())
		})
	}
	s.row.Note("called after %v", time.Since(began).Round(100*time.Millisecond))
}
