//go:build unix

package backend

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Shell starts sh with a command line, as a terminal does. It runs in the directory dir and in a
// process group of its own, and Stop sends its signal to this whole group. The output is appended to
// the file log.
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
