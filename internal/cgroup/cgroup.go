// Package cgroup finds the machine's control groups (version 2).
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNone says that the machine has mounted no cgroup2 file system.
var ErrNone = errors.New("no cgroup2 file system is mounted: mount one, usually on /sys/fs/cgroup")

// Root is where the cgroup2 file system is mounted.
func Root() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for control groups: %w", err)
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if at, ok := mount(in.Text()); ok {
			return at, nil
		}
	}
	if err := in.Err(); err != nil {
		return "", fmt.Errorf("look for control groups: %w", err)
	}
	return "", ErrNone
}

// Under is where a cgroup2 file system is at a directory: the directory itself, or "unified" in it, where a machine has both
// versions of control groups.
func Under(dir string) (string, error) {
	for _, at := range []string{dir, filepath.Join(dir, "unified")} {
		var st unix.Statfs_t
		if err := unix.Statfs(at, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return at, nil
		}
	}
	return "", fmt.Errorf("%s is no directory of a cgroup2 file system", dir)
}

// mount reads a line of mountinfo (proc(5)): where a cgroup2 file system is mounted from its root.
func mount(line string) (at string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	f := strings.Fields(before)
	if !ok || len(f) < 5 || f[3] != "/" || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	// Spaces and the like are written as octal numbers.
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]), true
}
