// Package lab holds the pieces of a cluster made of network namespaces, which the demo, the end-to-end tests and the
// benchmarks share: where the binaries are, a bpffs to pin in, agents started inside a node's namespace, pods attached
// by the real CNI plugin, workloads started inside pods.
//
// It keeps no state: whoever uses it remembers what it started (process.ID) and made, and undoes it.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
)

// Binaries are the programs of Hypha that a lab runs.
type Binaries struct {
	Dir   string
	Hypha string
	Agent string
	CNI   string
}

// FindBinaries looks for all of them in one directory.
func FindBinaries(dir string) (Binaries, error) {
	b := Binaries{
		Dir:   dir,
		Hypha: filepath.Join(dir, "hypha"),
		Agent: filepath.Join(dir, "hypha-agent"),
		CNI:   filepath.Join(dir, "hypha-cni"),
	}
	for _, f := range []string{b.Hypha, b.Agent, b.CNI} {
		if st, err := os.Stat(f); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			return b, fmt.Errorf("%s is not there: `make build` makes hypha, hypha-agent and hypha-cni side by side", f)
		}
	}
	return b, nil
}

// MountBPF mounts bpffs at its usual place unless it is there already, and says whether it did.
func MountBPF() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(paths.BPFFS, &fs); err == nil && fs.Type == unix.BPF_FS_MAGIC {
		return false, nil
	}
	if err := unix.Mount("bpffs", paths.BPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700"); err != nil {
		return false, fmt.Errorf("mount bpffs at %s: %w", paths.BPFFS, err)
	}
	return true, nil
}

// RemovePins deletes an agent's directory in bpffs, and the directory of all agents when it was the last: programs and
// maps go once nothing else uses them. What else lies outside its state directory goes too.
func RemovePins(p paths.Paths) error {
	if err := os.RemoveAll(filepath.Dir(paths.Refuge(p.AgentSocket()))); err != nil {
		return fmt.Errorf("remove sockets: %w", err)
	}
	if err := os.RemoveAll(p.BPF); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	err := os.Remove(filepath.Dir(p.BPF))
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// UnmountBPF undoes MountBPF, unless somebody else has pinned something meanwhile.
func UnmountBPF() error {
	left, err := os.ReadDir(paths.BPFFS)
	if err != nil {
		return fmt.Errorf("unmount bpffs: %w", err)
	}
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), ".debug") { // the kernel puts maps.debug and progs.debug into each bpffs
			return nil
		}
	}
	if err := unix.Unmount(paths.BPFFS, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount bpffs: %w", err)
	}
	return nil
}
