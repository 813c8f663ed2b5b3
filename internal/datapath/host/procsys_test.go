package host

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// insideProcSys is set in the process that TestOpenSysctls starts.
const insideProcSys = "HYPHA_TEST_PROCSYS"

func TestMain(m *testing.M) {
	if os.Getenv(insideProcSys) == "" {
		os.Exit(m.Run())
	}
	if err := readOnly(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// readOnly does, in namespaces of its own, what a container runtime does to /proc/sys, and then what an agent does.
func readOnly() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount(sysctlRoot, sysctlRoot, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", sysctlRoot, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	const path = "net/ipv4/ip_forward"
	for _, value := range []string{"1", "0"} { // whichever it is, one is a change
		if err := os.WriteFile(sysctlRoot+"/"+path, []byte(value), 0); err == nil {
			return fmt.Errorf("%s is not read-only", sysctlRoot)
		}
	}
	for range 2 {
		if err := OpenSysctls(); err != nil {
			return err
		}
	}
	for _, value := range []string{"1", "0"} {
		if err := set(path, value); err != nil {
			return err
		}
		if got, err := get(path); got != value {
			return fmt.Errorf("%s is %q: %w", path, got, err)
		}
	}
	return nil
}

func TestOpenSysctls(t *testing.T) {
	netns.Require(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), insideProcSys+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
