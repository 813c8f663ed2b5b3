// Package bpffs mounts the file system that holds pinned maps and links. What is pinned has to outlive the agent, and a
// file system that only the agent's own mount namespace knows would go with it, and every policy with that.
package bpffs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
)

// Mount mounts bpffs at its usual place if nothing of the kind is there. In a mount namespace of its own, as `ip netns exec`
// makes one, that is the file system of the machine.
func Mount() error {
	ok, err := Mounted()
	if err != nil || ok {
		return err
	}
	if outside := outer(); outside != "" {
		return share(outside)
	}
	return mount()
}

func mount() error {
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
