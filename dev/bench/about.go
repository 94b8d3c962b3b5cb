package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/gomicroexample/basis/dev/internal/binaries"
)

// facts has data for the report: the machine, the versions, and the sizes of the programs.
type facts struct {
	CPU      string
	Cores    int
	MemoryGB float64
	Kernel   string
	Go       string
	Consul   string
	Commit   string
	Time     time.Time
	Modules  []module
	Sizes    []size
}

// module is a Go module that a contender is built from.
type module struct{ Path, Version string }

// size has the sizes of one of the pair's programs, in megabytes.
type size struct {
	Program  string
	BinaryMB float64
	ImageMB  float64 // 0 if there is no image
}

// compared lists the paths of the modules whose versions the report contains.
var compared = []string{
	"github.com/micro/go-micro",
	"github.com/micro/go-plugins",
	"github.com/go-kit/kit",
	"github.com/go-kratos/kratos/v2",
	"go.opentelemetry.io/otel/sdk",
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
	"github.com/zeromicro/go-zero",
	"github.com/sony/gobreaker/v2",
	"golang.org/x/time",
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
	"github.com/afex/hystrix-go",
	"github.com/uber/jaeger-client-go",
	"go.uber.org/ratelimit",
	"github.com/hashicorp/consul/api",
}

// about returns the facts of a report. dir is the directory of the built programs.
func about(ctx context.Context, dir string) (facts, error) {
	f := facts{Cores: runtime.NumCPU(), Go: runtime.Version(), Consul: binaries.Consul.Version, Time: time.Now().UTC()}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return f, err
	}
	cpus, err := proc.CPUInfo()
	if err != nil {
		return f, fmt.Errorf("asking for the processor: %w", err)
	}
	if len(cpus) == 0 {
		return f, errors.New("asking for the processor: /proc/cpuinfo lists none")
	}
	f.CPU = cpus[0].ModelName
	memory, err := proc.Meminfo()
	if err != nil {
		return f, err
	}
	if memory.MemTotalBytes != nil {
		f.MemoryGB = float64(*memory.MemTotalBytes) / 1e9
	}
	kernel, err := proc.SysctlStrings("kernel.osrelease")
	if err != nil {
		return f, err
	}
	f.Kernel = strings.Join(kernel, " ")
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty= with changes").Output()
	if err != nil {
		return f, fmt.Errorf("asking git for the commit: %w", err)
	}
	f.Commit = strings.TrimSpace(string(commit))
	if f.Modules, err = modules(dir); err != nil {
		return f, err
	}
	for _, program := range []string{"srv", "client"} {
		binary, err := os.Stat(filepath.Join(dir, program))
		if err != nil {
			return f, err
		}
		f.Sizes = append(f.Sizes, size{program, float64(binary.Size()) / 1e6, imageMB(ctx, "basis-"+program+":dev")})
	}
	return f, nil
}

// modules returns the compared modules that the binaries in dir are built from, with their
// versions.
func modules(dir string) ([]module, error) {
	var all []module
	binaries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range binaries {
		info, err := buildinfo.ReadFile(filepath.Join(dir, b.Name()))
		if err != nil {
			return nil, err
		}
		for _, d := range info.Deps {
			if m := (module{d.Path, d.Version}); slices.Contains(compared, d.Path) && !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Path+a.Version, b.Path+b.Version) })
	return all, nil
}

// imageMB returns the size of an image, or 0 if there is no Docker or no such image.
func imageMB(ctx context.Context, image string) float64 {
	out, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format={{.Size}}", image).Output()
	if err != nil {
		return 0
	}
	bytes, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		return 0
	}
	return bytes / 1e6
}
