package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const groupRoot = "/sys/fs/cgroup"

// hierarchy is one tree of control groups: of version 1 one for each controller, of version 2 the only one.
type hierarchy struct {
	at      string // where it is mounted
	fs      string // cgroup or cgroup2
	options string // which one of version 1 it is: "cpu,cpuacct", "name=systemd"
}

// hierarchies reads the mount table (proc(5), mountinfo).
func hierarchies(table string) []hierarchy {
	var out []hierarchy
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if len(mount) < 6 || len(super) < 3 || !whole(mount[3]) || !strings.HasPrefix(mount[4], groupRoot) {
			continue
		}
		h := hierarchy{at: mount[4], fs: super[0]}
		switch h.fs {
		case "cgroup":
			options := slices.DeleteFunc(strings.Split(super[2], ","), func(o string) bool {
				return o == "rw" || o == "ro" || o == "xattr" || strings.HasPrefix(o, "release_agent=") || o == "clone_children"
			})
			h.options = strings.Join(options, ",")
		case "cgroup2":
		default:
			continue
		}
		if !slices.ContainsFunc(out, func(o hierarchy) bool { return o.at == h.at }) {
			out = append(out, h)
		}
	}
	return out
}

// whole says whether a mount shows all of its file system. Seen from a namespace of control groups, all is above the own root.
func whole(root string) bool { return strings.Trim(root, "/.") == "" }

func mounted() ([]hierarchy, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for control groups: %w", err)
	}
	all := hierarchies(string(table))
	if len(all) == 0 {
		return nil, fmt.Errorf("look for control groups: none are mounted below %s", groupRoot)
	}
	return all, nil
}

// Delegate lets groups have controllers where version 2 is the only one, and returns those that it had to switch on.
func Delegate() ([]string, error) {
	all, err := mounted()
	if err != nil || len(all) > 1 {
		return nil, err
	}
	return all[0].delegate()
}

// Withdraw switches controllers off again that Delegate has switched on; those that somebody has begun to use stay.
func Withdraw(controllers []string) error {
	all, err := mounted()
	if err != nil {
		return err
	}
	for _, c := range controllers {
		err := os.WriteFile(filepath.Join(all[0].at, "cgroup.subtree_control"), []byte("-"+c), 0)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("switch off controller of control groups: %w", err)
		}
	}
	return nil
}

// delegate gives the groups below the root of version 2 all controllers that it has.
func (h hierarchy) delegate() ([]string, error) {
	if h.fs != "cgroup2" {
		return nil, nil
	}
	there, err := os.ReadFile(filepath.Join(h.at, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(h.at, "cgroup.subtree_control")
	on, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var added []string
	for c := range strings.FieldsSeq(string(there)) {
		if slices.Contains(strings.Fields(string(on)), c) {
			continue
		}
		if err := os.WriteFile(file, []byte("+"+c), 0); err != nil {
			return added, fmt.Errorf("switch on controller of control groups: %w", err)
		}
		added = append(added, c)
	}
	return added, nil
}

// MakeGroups makes a control group of this name in every hierarchy and returns their directories.
func MakeGroups(name string) ([]string, error) {
	all, err := mounted()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		dir := filepath.Join(h.at, name)
		if err := h.make(dir); err != nil {
			return nil, fmt.Errorf("make control group: %w", err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

func (h hierarchy) make(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // of version 1, empty at first, and then nobody can enter
		b, err := os.ReadFile(filepath.Join(h.at, f))
		if h.fs != "cgroup" || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f), b, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// RemoveGroups removes the control groups whose names match a pattern (path.Match) from every hierarchy, with those below them. Their
// processes must have ended, or be about to.
func RemoveGroups(pattern string) error {
	all, err := mounted()
	if err != nil {
		return err
	}
	for _, h := range all {
		dirs, err := filepath.Glob(filepath.Join(h.at, pattern))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := removeGroup(dir); err != nil {
				return fmt.Errorf("remove control group: %w", err)
			}
		}
	}
	return nil
}

func removeGroup(dir string) error {
	var err error
	for range 100 {
		var below []string
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		for _, d := range slices.Backward(below) {
			if rm := unix.Rmdir(d); rm != nil && !errors.Is(rm, unix.ENOENT) {
				err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: d, Err: rm})
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// mountGroups shows the machine's control groups below its root, as if there were no others.
func mountGroups(root string) error {
	all, err := mounted()
	if err != nil {
		return err
	}
	at := filepath.Join(root, groupRoot)
	if !slices.ContainsFunc(all, func(h hierarchy) bool { return h.at == groupRoot }) {
		if err := mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range all {
		dir := filepath.Join(root, h.at)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := mount(h.fs, dir, h.fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.options); err != nil {
			return err
		}
	}
	return aliases(at)
}

// aliases copies the symbolic links that stand for hierarchies with two controllers: cpu for cpu,cpuacct.
func aliases(at string) error {
	entries, err := os.ReadDir(groupRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(groupRoot, e.Name())); err == nil {
			if err := os.Symlink(to, filepath.Join(at, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaveRoot moves this process out of the root group where version 2 has controllers: groups that are given them must hold no process.
func leaveRoot() error {
	all, err := mounted()
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.fs != "cgroup2" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(h.at, "cgroup.controllers"))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(b)) == 0 {
			continue
		}
		dir := filepath.Join(h.at, "init")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("1"), 0); err != nil {
			return err
		}
		if _, err := h.delegate(); err != nil {
			return err
		}
	}
	return nil
}
