package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// startEngine is a shell script that starts a Docker engine. $0 is the host's name, and the script
// passes its arguments to dockerd. The script hides the name servers. Otherwise, an engine that
// tries to pull an image would wait for a name server. The script gives the engine its own /run, so
// that the sockets of the containers do not appear in this machine's /run.
const startEngine = `hostname "$0" && mount --bind /dev/null /etc/resolv.conf && mount -t tmpfs tmpfs /run && exec dockerd "$@"`

// EngineUsable returns nil if StartEngine can start an engine. Otherwise, the error names the
// requirement that is not met.
func EngineUsable() error {
	if err := Usable(); err != nil {
		return err
	}
	return find("docker.io", "dockerd", "docker")
}

// StartEngine starts a Docker engine on the host, and waits until the engine responds. It returns
// the engine's URL for DOCKER_HOST. The engine's data are in h.Dir. If the engine ends, the kernel
// kills the containers.
func (h *Host) StartEngine(ctx context.Context) (url string, err error) {
	url = "unix://" + filepath.Join(h.Dir, "docker.sock")
	// The engine is the first process of a PID namespace. If this process ends, the kernel kills
	// all other processes of the namespace.
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

// removeCgroups removes the control groups of a network's engines. Killed engines leave empty
// groups behind. removeCgroups does not remove a group that still has a process.
func removeCgroups(network string) {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(path, "/"+network+"-") {
			found = append(found, path)
		}
		return nil // an error may mean that a group was removed meanwhile
	})
	for i := len(found) - 1; i >= 0; i-- { // children before parents
		_ = os.Remove(found[i])
	}
}

// child returns the ID of the only child of the process pid. If the process does not have exactly
// one child, it returns pid. The child of unshare is the first process of a PID namespace.
func child(pid int) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if c, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
		return c
	}
	return pid
}
