// Package cgroup runs the tests of a package in a control group of their own, so that programs on its sockets see nobody
// else's. The group goes when the tests have ended; what a run that was killed left behind goes with the next one.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/cgroup"
	"github.com/hypha-net/hypha/internal/netns"
)

// env tells the inner run its control group.
const env = "HYPHA_TEST_CGROUP"

// Main is what a package's TestMain calls: it runs the tests in a process inside a new control group. Where there can be
// none (no root, no cgroup2) they run as they are.
func Main(m *testing.M) {
	if os.Getenv(env) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	root, err := cgroup.Root()
	if errors.Is(err, cgroup.ErrNone) {
		os.Exit(m.Run())
	}
	code := 1
	if err == nil {
		code, err = inside(root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a control group:", err)
	}
	os.Exit(code)
}

// Path is the tests' control group. Without one the test is skipped.
func Path(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(env)
	if dir == "" {
		t.Skip("needs root and a cgroup2 file system: makes a control group")
	}
	return dir
}

func inside(root string) (code int, err error) {
	if err := sweep(root); err != nil {
		return 1, err
	}
	name, err := netns.TempName("cgroup")
	if err != nil {
		return 1, err
	}
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, remove(dir)) }()
	f, err := os.Open(dir)
	if err != nil {
		return 1, err
	}
	defer func() { _ = f.Close() }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), env+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread() // the child ends with the thread that started it
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd()), Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// remove removes a control group once what ran in it has ended.
func remove(dir string) error {
	var err error
	for range 50 {
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// sweep removes the groups of test runs that are gone.
func sweep(root string) error {
	old, err := filepath.Glob(filepath.Join(root, netns.TempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if id, ok := netns.TempOwner(filepath.Base(dir)); ok && !id.Alive() {
			_ = os.Remove(dir) // another run may do the same at this moment
		}
	}
	return nil
}
