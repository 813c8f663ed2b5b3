package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
)

// Disk puts the node's state on a file system of its own, of this size ("400k"). It is for Config.Prepare; Close takes it away.
func (n *Node) Disk(size string) error {
	if err := os.Mkdir(n.Paths.State, 0o750); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := unix.Mount("hypha-test", n.Paths.State, "tmpfs", 0, "mode=0750,size="+size); err != nil {
		return fmt.Errorf("make disk of %s: %w", n.Name, err)
	}
	return nil
}

// ReadOnly makes the disk refuse writes, or take them again.
func (n *Node) ReadOnly(on bool) error {
	flags := uintptr(unix.MS_REMOUNT)
	if on {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", n.Paths.State, "", flags, ""); err != nil {
		return fmt.Errorf("remount disk of %s: %w", n.Name, err)
	}
	return nil
}

func (n *Node) ballast() string { return filepath.Join(n.Paths.State, "ballast") }

// Fill leaves no room on the disk.
func (n *Node) Fill() error {
	f, err := os.OpenFile(n.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk of %s: %w", n.Name, err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; { // first in large pieces, then in small ones
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return fmt.Errorf("fill disk of %s: %w", n.Name, err)
		}
	}
	return nil
}

// Free undoes Fill.
func (n *Node) Free() error {
	if err := os.Remove(n.ballast()); err != nil {
		return fmt.Errorf("free disk of %s: %w", n.Name, err)
	}
	return nil
}

// unmount takes a node's disk away, if it has one of its own.
func unmount(p paths.Paths) error {
	err := unix.Unmount(p.State, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // no mount point
		return fmt.Errorf("take disk away: %w", err)
	}
	return nil
}
