// Package bpffs mounts the file system that holds pinned maps and links.
package bpffs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
)

// Mount mounts bpffs at its usual place if nothing of the kind is there.
func Mount() error {
	ok, err := Mounted()
	if err != nil || ok {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("bpffs", paths.BPFFS, "bpf", flags, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", paths.BPFFS, err)
	}
	return nil
}

// Mounted says whether bpffs is at its usual place.
func Mounted() (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(paths.BPFFS, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: paths.BPFFS, Err: err}
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}
