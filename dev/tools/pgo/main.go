// Command pgo profiles srv and client under load, and writes the profile that both
// are built with, beside each main.go: "make pgo". With one profile for both, Go
// compiles the packages that both use once.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/gomicroexample/basis/dev/internal/backend"
	"github.com/gomicroexample/basis/dev/internal/binaries"
	"github.com/gomicroexample/basis/dev/internal/project"
)

// load is how long the client makes calls.
const load = 20 * time.Second

// patience is how long Consul and srv together may take to be ready.
const patience = 30 * time.Second

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "pgo: profiles srv and client under load, and writes srv/default.pgo and client/default.pgo\n")
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "pgo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := project.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "basis-pgo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, root, dir); err != nil {
		return fmt.Errorf("building the pair: %w", err)
	}
	if err := call(ctx, dir); err != nil {
		return err
	}
	merged, err := merge(profilePath(dir, "srv"), profilePath(dir, "client"))
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	if err := merged.Write(&packed); err != nil {
		return err
	}
	for _, out := range []string{"srv/default.pgo", "client/default.pgo"} {
		if err := os.WriteFile(filepath.Join(root, out), packed.Bytes(), 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("srv/default.pgo and client/default.pgo: %d samples\n", len(merged.Sample))
	return nil
}

// build builds both programs, whose sources are in root, into dir, and each with
// _profile.go. It leaves the old profile out, or the new one would depend on it. With
// -trimpath, profiles do not tell where the sources were.
func build(ctx context.Context, root, dir string) error {
	profiler := filepath.Join(root, "dev", "tools", "pgo", "_profile.go")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "srv", "profile.go"):    profiler,
		filepath.Join(root, "client", "profile.go"): profiler,
	}})
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-pgo=off", "-overlay", overlay,
		"-o", dir+string(filepath.Separator), "./srv", "./client")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// call has the client call srv with all that a call goes through, for as long as
// load, and both write their profiles into dir. A call that failed is an error.
func call(ctx context.Context, dir string) error {
	path, err := binaries.Consul.Find()
	if errors.Is(err, binaries.ErrMissing) {
		return fmt.Errorf("%w; build it with \"make tools\"", err)
	}
	if err != nil {
		return err
	}
	// In place of Jaeger. Nobody reads the spans; those that do not fit are dropped.
	jaeger, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for spans: %w", err)
	}
	defer jaeger.Close()

	readyCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	consul, err := backend.StartConsul(readyCtx, path, dir, "127.0.0.1", backend.ConsulPorts{}, nil)
	if err != nil {
		return err
	}
	defer consul.Stop(syscall.SIGTERM)
	start := func(name string, args ...string) (*backend.Process, error) {
		return backend.Start(name, filepath.Join(dir, name+".log"), backend.Environ("BASIS_CPU_PROFILE="+profilePath(dir, name)),
			filepath.Join(dir, name), append(args, "--registry_address="+consul.Addr, "--jaeger_address="+jaeger.LocalAddr().String())...)
	}
	srv, err := start("srv", "--server_address=127.0.0.1:0")
	if err != nil {
		return err
	}
	defer srv.Stop(syscall.SIGKILL)
	if _, err := consul.Nodes(readyCtx, "go.micro.srv.basis", 1); err != nil {
		return err
	}
	// A limiter and a breaker that act on every call and refuse none.
	client, err := start("client", "--requests=0", "--concurrency=16", "--rate_limit=1000000", "--hystrix_max_concurrent=1000")
	if err != nil {
		return err
	}
	defer client.Stop(syscall.SIGKILL)
	select {
	case <-time.After(load):
	case <-ctx.Done():
		return errors.New("interrupted")
	}
	for _, p := range []*backend.Process{client, srv} {
		if err := p.Stop(syscall.SIGHUP); err != nil {
			return fmt.Errorf("%s, after %v of calls: %w; its log ends:\n%s", p.Name, load, err, p.Tail())
		}
	}
	return nil
}

func profilePath(dir, name string) string { return filepath.Join(dir, name+".pgo") }

// merge returns the profiles in paths as one, without addresses and the files that
// they are in: the compiler goes by functions and lines.
func merge(paths ...string) (*profile.Profile, error) {
	var all []*profile.Profile
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		p, err := profile.Parse(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if len(p.Sample) == 0 {
			return nil, fmt.Errorf("no samples in %s", path)
		}
		p.Mapping = nil
		for _, l := range p.Location {
			l.Mapping, l.Address = nil, 0
		}
		all = append(all, p)
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return nil, fmt.Errorf("merging %v: %w", paths, err)
	}
	return merged, nil
}
