package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("hypha-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	later := filepath.Join(dir, "var", "lib") // not there yet
	check := func(ok bool, detail, remedy string) {
		t.Helper()
		if c := disk(later); c.OK != ok || !strings.Contains(c.Detail, detail) || !strings.Contains(c.Detail, dir) || !strings.Contains(c.Remedy, remedy) {
			t.Errorf("%+v, want %v, %q, %q", c, ok, detail, remedy)
		}
	}
	check(false, "1 MiB and", "make room")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	check(true, "200 MiB free", "")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	check(false, "read-only", "remount,rw")
}
