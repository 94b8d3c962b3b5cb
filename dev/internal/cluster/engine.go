package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// startEngine starts a Docker engine in namespaces of its own, with the host's name in $0 and the
// engine's arguments. The engine resolves no names, so that it gives up at once on pulling an image.
// A file system of its own in /run keeps the sockets of its containers from this machine.
const startEngine = `hostname "$0" && mount --bind /dev/null /etc/resolv.conf && mount -t tmpfs tmpfs /run && exec dockerd "$@"`

// EngineUsable returns nil if StartEngine can start an engine, and otherwise an error that says what
// is missing.
func EngineUsable() error {
	if err := Usable(); err != nil {
		return err
	}
	for _, command := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(command); err != nil {
			return err
		}
	}
	return nil
}

// StartEngine starts a Docker engine on the host, waits until the engine answers, and returns its
// URL for DOCKER_HOST. The engine's data are in h.Dir. The engine and its containers end together.
func (h *Host) StartEngine(ctx context.Context) (url string, err error) {
	url = "unix://" + filepath.Join(h.Dir, "docker.sock")
	// The engine is the first process of a PID namespace: the kernel kills all others with it.
	p, err := h.Start("dockerd", os.Environ(), "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", startEngine, h.Name,
		"--host="+url,
		"--data-root="+filepath.Join(h.Dir, "docker"),
		"--exec-root="+filepath.Join(h.Dir, "docker-exec"),
		"--pidfile="+filepath.Join(h.Dir, "docker.pid"),
		"--cgroup-parent=/"+h.Namespace(),
	)
	if err != nil {
		return "", err
	}
	return url, until(ctx, "a Docker engine on "+h.Name, func() error {
		if p.Ended() {
			return errors.New("it ended; its log ends:\n" + string(p.Tail()))
		}
		return run([]string{"docker", "--host", url, "info"})
	})
}

// removeCgroups removes the empty control groups that killed engines leave. Network.clear calls it
// when no process is left.
func removeCgroups(network string) {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(path, "/"+network+"-") {
			found = append(found, path)
		}
		return nil // a group may vanish meanwhile
	})
	for i := len(found) - 1; i >= 0; i-- { // children first
		_ = os.Remove(found[i])
	}
}

// child returns the only child of a process, or the process itself if it has none. The child of
// unshare is the first process of a PID namespace.
func child(pid int) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if c, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
		return c
	}
	return pid
}
