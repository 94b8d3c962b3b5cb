// Package binaries finds the third-party programs that the demo and the tests run, and builds
// missing programs from source. The programs are Consul, Jaeger, three gRPC clients, Prometheus and
// promtool.
package binaries

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gomicroexample/basis/dev/internal/jaegerui"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// Binary is a program that has its own module below dev/tools.
type Binary struct {
	Name     string   // of the program
	Version  string   // version of the module that has the program
	Variable string   // environment variable that names a binary to use instead
	folder   string   // folder of its module, below dev/tools; empty: Name
	pkg      string   // package to build
	tags     string   // build tags
	ldflags  string   // linker flags
	ask      string   // argument that makes the program print its version
	versions []string // if the version is right, the output contains one of these texts
	minutes  int      // approximate time of a build on two cores
}

// Consul and Jaeger, at the versions in their go.mod.
var (
	Consul = Binary{
		Name: "consul", Version: "1.22.6", Variable: "CONSUL_BIN",
		pkg:      "github.com/hashicorp/consul",
		ldflags:  "-s -w",
		ask:      "version",
		versions: []string{"Consul v1.22.6"},
		minutes:  7,
	}
	// Jaeger 2.13.0 is the program cmd/jaeger in version v1.76.0 of Jaeger's module.
	Jaeger = Binary{
		Name: "jaeger", Version: "1.76.0", Variable: "JAEGER_BIN",
		pkg:      "github.com/jaegertracing/jaeger/cmd/jaeger",
		ldflags:  "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v1.76.0",
		ask:      "version",
		versions: []string{`"gitVersion":"v1.76.0"`, `"gitVersion":"v2.13.0"`},
		minutes:  6,
	}
)

// Grpcurl, Ghz and HealthProbe are gRPC clients without go-micro. Grpcurl makes one call, Ghz makes
// many calls, and HealthProbe checks the health of a server.
var (
	Grpcurl = Binary{
		Name: "grpcurl", Version: "1.9.4", Variable: "GRPCURL_BIN",
		pkg:      "github.com/fullstorydev/grpcurl/cmd/grpcurl",
		ldflags:  "-s -w -X main.version=v1.9.4",
		ask:      "--version",
		versions: []string{"grpcurl v1.9.4"},
		minutes:  1,
	}
	Ghz = Binary{
		Name: "ghz", Version: "0.121.0", Variable: "GHZ_BIN",
		pkg:      "github.com/bojand/ghz/cmd/ghz",
		ldflags:  "-s -w -X main.version=v0.121.0",
		ask:      "--version",
		versions: []string{"v0.121.0"},
		minutes:  1,
	}
	HealthProbe = Binary{
		Name: "grpc-health-probe", Version: "0.4.61", Variable: "GRPC_HEALTH_PROBE_BIN",
		pkg:      "github.com/grpc-ecosystem/grpc-health-probe",
		ldflags:  "-s -w -X main.versionTag=v0.4.61",
		ask:      "--version",
		versions: []string{"v0.4.61;"},
		minutes:  1,
	}
)

// Prometheus and promtool 3.13.5 are two programs in version v0.313.5 of Prometheus's module. The
// binaries can discover targets by files, HTTP and DNS. The build tags leave out all other ways,
// because many of these need large libraries of cloud providers. This Prometheus has the API, but
// not the pages of the UI.
var (
	Prometheus = prometheusBinary("prometheus", "PROMETHEUS_BIN", 4)
	Promtool   = prometheusBinary("promtool", "PROMTOOL_BIN", 1)
)

func prometheusBinary(name, variable string, minutes int) Binary {
	return Binary{
		Name: name, Version: "0.313.5", Variable: variable,
		folder:   "prometheus",
		pkg:      "github.com/prometheus/prometheus/cmd/" + name,
		tags:     "remove_all_sd,enable_dns_sd",
		ldflags:  "-s -w -X github.com/prometheus/common/version.Version=3.13.5",
		ask:      "--version",
		versions: []string{name + ", version 3.13.5 "},
		minutes:  minutes,
	}
}

// ErrMissing means that a binary is not installed and not built, and that its environment variable
// is not set.
var ErrMissing = errors.New("not found")

// Dir returns the directory in which Build keeps binaries. It is the directory basis/bin in the
// directory that XDG_CACHE_HOME names. If XDG_CACHE_HOME is not set, it is .cache/basis/bin in the
// home directory.
func Dir() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no cache directory: %w; set XDG_CACHE_HOME", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "basis", "bin"), nil
}

// Find returns the path of b. It looks for b in this order: the binary that the environment
// variable names, the binary that Build built, and a binary on PATH with the right version. If
// there is no such binary, the error wraps ErrMissing. If the variable is set but does not name an
// executable, the error does not wrap ErrMissing.
func (b Binary) Find() (string, error) {
	if path := os.Getenv(b.Variable); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("%s: %w", b.Variable, err)
		}
		return filepath.Abs(path)
	}
	built, err := b.built()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	if path, err := exec.LookPath(b.Name); err == nil && b.isVersion(path) {
		return path, nil
	}
	return "", fmt.Errorf("%s %s: %w", b.Name, b.Version, ErrMissing)
}

// FindAll returns the paths of Consul and Jaeger. If one is missing, it returns the error of Find.
func FindAll() (consul, jaeger string, err error) {
	if consul, err = Consul.Find(); err != nil {
		return "", "", err
	}
	jaeger, err = Jaeger.Find()
	return consul, jaeger, err
}

// UI returns the path of a folder with the pages of Jaeger's UI. A Jaeger that Build built lacks
// these pages. The folder is in the directory that Dir returns. UI unpacks each file that is
// missing in the folder, or whose content is wrong.
func UI() (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	ui, err := jaegerui.Unpack(dir)
	if err != nil {
		return "", fmt.Errorf("%w; make that folder writable, or set XDG_CACHE_HOME to another", err)
	}
	return ui, nil
}

// built returns the path at which Build puts the binary.
func (b Binary) built() (string, error) {
	dir, err := Dir()
	return filepath.Join(dir, b.Name+"-"+b.Version), err
}

// isVersion reports whether the binary at path prints the right version.
func (b Binary) isVersion(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, b.ask).CombinedOutput()
	for _, v := range b.versions {
		if strings.Contains(string(out), v) {
			return true
		}
	}
	return false
}

// Folder returns the name of a folder below dev/tools. b is built from the module in this folder.
func (b Binary) Folder() string { return cmp.Or(b.folder, b.Name) }

// Build returns the path of b. If Find does not find b, Build first builds b from source, into the
// directory that Dir returns. Build writes its progress and the duration to log.
func (b Binary) Build(ctx context.Context, log io.Writer) (string, error) {
	path, err := b.Find()
	if err == nil {
		fmt.Fprintf(log, "%s %s: %s\n", b.Name, b.Version, path)
		return path, nil
	}
	if !errors.Is(err, ErrMissing) {
		return "", err
	}
	if path, err = b.built(); err != nil {
		return "", err
	}
	root, err := project.Root()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "%s %s: building from source, once on this machine; about %d min on two cores ...\n", b.Name, b.Version, b.minutes)
	start := time.Now()

	// Build into another file and rename it, so that an interrupted build leaves no file at path.
	unfinished := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(unfinished)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", b.tags, "-ldflags", b.ldflags, "-o", unfinished, b.pkg)
	build.Dir = filepath.Join(root, "dev", "tools", b.Folder())
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // a binary without C libraries runs in any container
	build.Stdout, build.Stderr = log, log
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building %s %s in %s: %w", b.Name, b.Version, build.Dir, err)
	}
	if err := os.Rename(unfinished, path); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "%s %s: built in %v: %s\n", b.Name, b.Version, time.Since(start).Round(time.Second), path)
	return path, nil
}
