package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A store keeps kernels under a directory: <dir>/<kernel>/ is an unpacked one, complete once it has that name.
type store struct{ dir string }

// open returns the directory of a kernel, which is fetched when it is not there.
func (s store) open(ctx context.Context, k kernel) (string, error) {
	dir := filepath.Join(s.dir, k.name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fmt.Printf("%-5s fetching\n", k.name)
	if err := s.fetch(ctx, k, dir); err != nil {
		return "", fmt.Errorf("fetch kernel %s: %w", k.name, err)
	}
	return dir, nil
}

func (s store) fetch(ctx context.Context, k kernel, dir string) error {
	if err := s.update(ctx); err != nil {
		return err
	}
	names, err := s.apt(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return err
	}
	image, err := newest(strings.Fields(names), k.pattern)
	if err != nil {
		return err
	}
	packages := []string{image}
	depends, err := s.apt(ctx, "apt-cache", "depends", image)
	if err != nil {
		return err
	}
	for line := range strings.Lines(depends) { // newer ones are split into several packages
		if _, p, ok := strings.Cut(line, "Depends: "); ok && (strings.HasPrefix(p, "linux-binary-") || strings.HasPrefix(p, "linux-modules-")) {
			packages = append(packages, strings.TrimSpace(p))
		}
	}
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(part, 0o755)); err != nil {
		return err
	}
	if _, err := s.apt(ctx, "apt-get", append([]string{"download"}, packages...)...); err != nil {
		return err
	}
	for _, p := range packages {
		debs, err := filepath.Glob(filepath.Join(s.dir, p+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("package %s: downloaded as %v: %w", p, debs, err)
		}
		if _, err := output(ctx, "", "dpkg", "-x", debs[0], part); err != nil {
			return err
		}
		if err := os.Remove(debs[0]); err != nil {
			return err
		}
	}
	return os.Rename(part, dir)
}

// update reads what packages there are, once.
func (s store) update(ctx context.Context) error {
	list := filepath.Join(s.dir, "apt", "sources.list")
	if _, err := os.Stat(list); err == nil {
		return nil
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(s.dir, "apt", d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(list+".part", []byte(strings.TrimSpace(suites)+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.Rename(list+".part", list); err != nil {
		return err
	}
	if _, err := s.apt(ctx, "apt-get", "update"); err != nil {
		return errors.Join(err, os.Remove(list))
	}
	return nil
}

// apt runs a command of apt on lists and sources of its own, which the machine's do not meet.
func (s store) apt(ctx context.Context, command string, args ...string) (string, error) {
	root := filepath.Join(s.dir, "apt")
	opts := []string{"-qq"}
	if command == "apt-cache" {
		opts = nil
	}
	for _, o := range []string{"Dir::Etc::sourcelist=" + root + "/sources.list", "Dir::Etc::sourceparts=-", "Dir::State::lists=" + root + "/lists",
		"Dir::Cache=" + root + "/cache", "Acquire::Languages=none", "APT::Sandbox::User=root"} {
		opts = append(opts, "-o", o)
	}
	return output(ctx, s.dir, command, append(opts, args...)...)
}

// output runs a command and returns what it printed.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
