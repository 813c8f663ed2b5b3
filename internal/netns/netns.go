// Package netns makes, enters and deletes named network namespaces, and runs code and commands inside them. A namespace
// is a bind mount under /run/netns, as `ip netns` makes it, so both see the same names.
//
// Only the network namespace is entered: mounts stay those of the caller, so bpffs and state directories are the same
// inside and outside. Everything may be called from any goroutine.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir holds the named namespaces.
const Dir = "/run/netns"

// NS is a named network namespace. It holds nothing open: a deleted one fails at the next use.
type NS struct{ name string }

// ErrNotExist is what Open answers for a name without a namespace.
var ErrNotExist = errors.New("no such network namespace")

// Path is where the namespace of this name is mounted.
func Path(name string) string { return filepath.Join(Dir, name) }

// Name is what the namespace is called.
func (n *NS) Name() string { return n.name }

// Path is where the namespace is mounted.
func (n *NS) Path() string { return Path(n.name) }

// Create makes a namespace with its loopback device up. A namespace or file of that name is an error.
func Create(name string) (*NS, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return nil, fmt.Errorf("create network namespace: %q is no name", name)
	}
	if err := shareDir(); err != nil {
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	f, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	_ = f.Close()
	n := &NS{name: name}
	err = OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", n.Path(), "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return loopbackUp()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create network namespace %s: %w", name, err), Delete(name))
	}
	return n, nil
}

// Open finds the namespace of this name; ErrNotExist when there is none (a left-over file without one included).
func Open(name string) (*NS, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(Path(name), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("open network namespace %s: %w", name, ErrNotExist)
	}
	return &NS{name: name}, nil
}

// Exists says whether there is a namespace of this name.
func Exists(name string) bool {
	_, err := Open(name)
	return err == nil
}

// Delete takes the name away; nil when there is none. The kernel ends the namespace, and the devices in it, once no
// process is left inside.
func Delete(name string) error {
	for {
		err := unix.Unmount(Path(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // bind-mounted more than once, when /run/netns was shared in between
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return fmt.Errorf("unmount network namespace %s: %w", name, err)
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// List returns the names that begin with prefix, left-over files without a namespace included.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Mounted says whether Dir is a mount point of its own, which the first Create (or `ip netns add`) makes it.
func Mounted() bool {
	// A bind mount of a directory onto itself has the device of its parent: only the mount table tells.
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == Dir {
			return true
		}
	}
	return false
}

// RemoveDir takes Dir itself away when nothing is in it. It undoes what the first Create did to a fresh machine.
func RemoveDir() error {
	left, err := List("")
	if err != nil || len(left) > 0 {
		return err
	}
	if Mounted() {
		if err := unix.Unmount(Dir, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", Dir, err)
		}
	}
	if err := os.Remove(Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", Dir, err)
	}
	return nil
}

// shareDir makes Dir a shared mount, as `ip netns add` does: else a later `ip netns add` would hide our mounts under a
// copy, and they could not be deleted any more.
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	for range 2 {
		err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("share %s: %w", Dir, err)
		}
		if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", Dir, err)
		}
	}
	return fmt.Errorf("share %s: still no mount point", Dir)
}

// OnThread runs fn on an operating system thread of its own, which ends with it: no other goroutine ever sees what fn
// did to its thread. It is never the main thread: that one does not end, and it is what the process shows to itself and others
// as its own (/proc/self/ns/net).
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- OnThread(fn) // on another, as this one is taken
			return
		}
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}
