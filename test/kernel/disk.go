package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed guest/run.sh
var guestRun []byte

// A program of the disk is built by `go build` or, with test set, `go test -c`.
type program struct {
	name, pkg string
	test      bool
}

const module0 = "github.com/hypha-net/hypha/"

var programs = []program{
	{"hypha", module0 + "cmd/hypha", false},
	{"hypha-agent", module0 + "cmd/hypha-agent", false},
	{"hypha-cni", module0 + "cmd/hypha-cni", false},
	{"verifier.test", module0 + "internal/testutil/bpftest", true},
	{"maps.test", module0 + "internal/datapath/maps", true},
	{"pod.test", module0 + "bpf/pod", true},
	{"overlay.test", module0 + "bpf/overlay", true},
	{"host.test", module0 + "bpf/host", true},
	{"xdp.test", module0 + "bpf/xdp", true},
	{"loader.test", module0 + "internal/datapath/loader", true},
	{"service.test", module0 + "internal/datapath/service", true},
	{"prefilter.test", module0 + "internal/datapath/prefilter", true},
	{"socket.test", module0 + "internal/datapath/socket", true},
	{"link.test", module0 + "internal/datapath/link", true},
	{"e2e.test", module0 + "test/e2e", true},
}

// build fills a directory with everything the checks run: the same for all kernels, and usable where it is.
func build(ctx context.Context, dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "tool"), 0o755)); err != nil {
		return err
	}
	for _, p := range programs {
		args := []string{"build"}
		if p.test {
			args = []string{"test", "-c"}
		}
		cmd := exec.CommandContext(ctx, "go", append(args, "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, p.name), p.pkg)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.name, err, out)
		}
	}
	for _, t := range tools {
		path, err := exec.LookPath(t)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "tool", t), data, 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "run.sh"), guestRun, 0o755)
}

// disk makes a file system out of a directory; "": an empty one.
func disk(ctx context.Context, path, dir, size string) error {
	args := []string{"-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", path, size}
	if dir != "" {
		args = append([]string{"-d", dir}, args...)
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	_, err := output(ctx, "", "mke2fs", args...)
	return err
}
