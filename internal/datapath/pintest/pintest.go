// Package pintest gives tests a directory of their own in bpffs, gone when the test ends. What a killed test run left
// behind goes with the next one.
package pintest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/bpffs"
	"github.com/hypha-net/hypha/internal/paths"
)

const prefix = "hypha-test-"

var counter atomic.Uint32

// Dir makes the directory; without root the test skips and says so.
func Dir(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes BPF maps and pins them")
	}
	if err := bpffs.Mount(); err != nil {
		t.Fatal(err)
	}
	sweep(t)
	dir := filepath.Join(paths.BPFFS, fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), counter.Add(1)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// sweep removes directories of test processes that are gone.
func sweep(t testing.TB) {
	old, err := filepath.Glob(filepath.Join(paths.BPFFS, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		n, err := strconv.Atoi(pid)
		if err == nil && unix.Kill(n, 0) == unix.ESRCH {
			_ = os.RemoveAll(dir) // another run may do the same at this moment
		}
	}
}
