package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hypha-net/hypha/internal/cgroup"
	"github.com/hypha-net/hypha/internal/paths"
)

// Cgroup is the control group of one agent's node, whose processes find services by it; "" where the machine has no cgroup2.
func Cgroup(p paths.Paths) (string, error) {
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrNone) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "hypha-"+p.Owner()), nil
}

// EnterCgroup moves this process, and whom it becomes or starts, into the control group of a node.
func EnterCgroup(p paths.Paths) error {
	dir, err := Cgroup(p)
	if err != nil || dir == "" {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter control group: %w", err)
	}
	return nil
}

// RemoveCgroup removes the control group of a node. Those in it must have ended, or be about to.
func RemoveCgroup(p paths.Paths) error {
	dir, err := Cgroup(p)
	if err != nil || dir == "" {
		return err
	}
	for range 50 {
		if err = os.Remove(dir); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
