package bpffs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/paths"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// inside is set in the process that TestPrivateNamespace starts: the directory to make on bpffs.
const inside = "HYPHA_TEST_BPFFS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		if err := private(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// private does, in a mount namespace of its own, what `ip netns exec` does to /sys, and then what an agent does.
func private(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if ok, err := Mounted(); err != nil || ok {
		return fmt.Errorf("bpffs before Mount: %v, %w", ok, err)
	}
	if err := Mount(); err != nil {
		return err
	}
	if ok, err := Mounted(); err != nil || !ok {
		return fmt.Errorf("no bpffs after Mount: %w", err)
	}
	return os.Mkdir(dir, 0o700)
}

// What an agent pins in a mount namespace that ends with it has to be there afterwards.
func TestPrivateNamespace(t *testing.T) {
	netns.Require(t)
	if err := Mount(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(paths.BPFFS, fmt.Sprintf("hypha-test-%d", os.Getpid()))
	t.Cleanup(func() { _ = os.Remove(dir) })
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("what was pinned in a mount namespace went with it: %v", err)
	}
}
