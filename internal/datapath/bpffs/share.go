package bpffs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/paths"
)

// outer is the mount namespace around this process's own, as a file: that of the machine's first process, or of the parent
// where that one cannot be looked at. "" if this is no other one, or none can be seen, as in a container.
func outer() string {
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return ""
	}
	for _, pid := range []int{1, os.Getppid()} {
		file := fmt.Sprintf("/proc/%d/ns/mnt", pid)
		if other, err := os.Readlink(file); err == nil && other != own {
			return file
		}
	}
	return ""
}

// share brings the bpffs of another mount namespace into this one. It is mounted there if it is not.
func share(namespace string) error {
	tree, err := clone(namespace)
	if err != nil {
		return fmt.Errorf("bpffs is not on %s in this mount namespace, and one mounted here would end with it: mount it before, or enter "+
			"the network namespace only (nsenter --net=...): %w", paths.BPFFS, err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, paths.BPFFS, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the machine's bpffs on %s: %w", paths.BPFFS, err)
	}
	return nil
}

// clone is a mount, not yet anywhere, of the bpffs of a mount namespace.
func clone(namespace string) (tree int, err error) {
	ns, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", namespace, err)
	}
	defer unix.Close(ns)
	tree = -1
	err = netns.OnThread(func() error { // which nobody uses again: it is in another mount namespace
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the working directory: %w", err)
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter %s: %w", namespace, err)
		}
		ok, err := Mounted()
		if err == nil && !ok {
			err = mount()
		}
		if err != nil {
			return err
		}
		if tree, err = unix.OpenTree(unix.AT_FDCWD, paths.BPFFS, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			return fmt.Errorf("open mount %s: %w", paths.BPFFS, err)
		}
		return nil
	})
	return tree, err
}
