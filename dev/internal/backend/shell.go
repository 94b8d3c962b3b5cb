//go:build unix

package backend

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Shell starts sh, which runs the command line. The shell appends its output to the file log. It
// runs in the directory dir and in its own process group. Stop sends the signal to all processes of
// this group, as a terminal does.
func Shell(name, log string, env []string, dir, line string) (*Process, error) {
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = env
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p, err := start(name, log, cmd)
	if err != nil {
		return nil, err
	}
	p.signal = func(sig os.Signal) error {
		err := syscall.Kill(-p.pid, sig.(syscall.Signal))
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	return p, nil
}
