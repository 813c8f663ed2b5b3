package loader

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
)

const bpffsPath = paths.BPFFS

// MountBPFFS mounts bpffs at its usual place if nothing of the kind is there.
func MountBPFFS() error {
	ok, err := isBPFFS(bpffsPath)
	if err != nil || ok {
		return err
	}
	if err := unix.Mount("bpffs", bpffsPath, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", bpffsPath, err)
	}
	return nil
}

func isBPFFS(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}
