package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, args ...string) (*exec.Cmd, ID) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	id, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func TestStop(t *testing.T) {
	cmd, id := start(t, "sleep", "60")
	if !id.Alive() || Parent(id.PID) != os.Getpid() {
		t.Fatalf("alive %v, parent %d", id.Alive(), Parent(id.PID))
	}
	if err := id.Stop(5 * time.Second); err != nil { // it stays a zombie until Wait
		t.Fatal(err)
	}
	if id.Alive() {
		t.Fatal("a zombie counts as alive")
	}
	_ = cmd.Wait()
	if err := id.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("Signal after the end: %v", err)
	}
}

func TestStopKills(t *testing.T) {
	_, id := start(t, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	time.Sleep(50 * time.Millisecond)
	if err := id.Stop(100 * time.Millisecond); err != nil || id.Alive() {
		t.Fatalf("%v, alive %v", err, id.Alive())
	}
}

// A number that was given to another process is not that process.
func TestOtherStart(t *testing.T) {
	cmd, id := start(t, "sleep", "60")
	other := ID{PID: id.PID, Start: id.Start - 1}
	if other.Alive() || !errors.Is(other.Signal(syscall.SIGKILL), os.ErrProcessDone) || other.Stop(0) != nil {
		t.Fatal("took a process for another")
	}
	if !id.Alive() || cmd.ProcessState != nil {
		t.Fatal("hit the wrong process")
	}
	if (ID{}).Alive() {
		t.Fatal("nobody is alive")
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "x.pid")
	if _, err := ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	want := ID{PID: 17, Start: 1234567890123}
	if err := want.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(path); err != nil || got != want {
		t.Fatalf("%v %v", got, err)
	}
	for _, s := range []string{"", "1", "x.1", "1.x", "-4.1", "1.2.3"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v", s, id)
		}
	}
}
