package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/process"
)

func testName(t *testing.T, s string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	name := fmt.Sprintf("hypha-ns-%d-%s", os.Getpid(), s)
	t.Cleanup(func() {
		if err := Delete(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

func create(t *testing.T, s string) *NS {
	t.Helper()
	n, err := Create(testName(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCreateOpenDelete(t *testing.T) {
	name := testName(t, "a")
	if _, err := Open(name); !errors.Is(err, ErrNotExist) {
		t.Fatalf("Open before Create: %v", err)
	}
	n, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(name); !errors.Is(err, os.ErrExist) {
		t.Fatalf("second Create: %v", err)
	}
	if !Exists(name) || !Mounted() {
		t.Fatal("namespace or mount is missing")
	}
	if names, err := List(name); err != nil || !slices.Contains(names, name) {
		t.Fatalf("List: %v %v", names, err)
	}
	links, err := n.Links()
	if err != nil || !slices.Contains(links, "lo") || slices.Contains(links, "eth0") {
		t.Fatalf("Links: %v %v", links, err)
	}
	if err := n.Do(func() error { // loopback is up
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	if Exists(name) {
		t.Fatal("still there")
	}
	if err := n.Do(func() error { return nil }); err == nil {
		t.Fatal("entered a deleted namespace")
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := Create(name); err == nil {
			t.Errorf("Create(%q) worked", name)
		}
	}
}

// TestDoStaysInside runs many goroutines in two namespaces and outside: none may see another's.
func TestDoStaysInside(t *testing.T) {
	a, b := create(t, "a"), create(t, "b")
	self := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	outside := self()
	var mu sync.Mutex
	seen := map[string]map[string]bool{"a": {}, "b": {}, "out": {}}
	note := func(who, ns string) {
		mu.Lock()
		defer mu.Unlock()
		seen[who][ns] = true
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _ = a.Do(func() error { note("a", self()); return nil }) })
		wg.Go(func() { _ = b.Do(func() error { note("b", self()); return nil }) })
		wg.Go(func() { note("out", self()) })
	}
	wg.Wait()
	if len(seen["a"]) != 1 || len(seen["b"]) != 1 || len(seen["out"]) != 1 || !seen["out"][outside] || seen["a"][outside] || seen["b"][outside] {
		t.Fatalf("namespaces mixed up: %v", seen)
	}
}

// TestDoSparesTheMainThread: whatever goroutines do, the process stays where it is in the eyes of those who ask for it by number.
func TestDoSparesTheMainThread(t *testing.T) {
	process := func() string {
		s, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return s
	}
	outside, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	a := create(t, "a")
	for range 20 { // until the runtime has given every thread it has
		var wg, all sync.WaitGroup
		all.Add(50)
		for range 50 {
			wg.Go(func() {
				_ = a.Do(func() error {
					all.Done()
					all.Wait()
					if in := process(); in != outside {
						t.Errorf("the process is in %s, was in %s", in, outside)
					}
					return nil
				})
			})
		}
		wg.Wait()
	}
}

func TestDoEndsGoroutine(t *testing.T) {
	a := create(t, "a")
	if err := a.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Fatal("no error from a function that ended its goroutine")
	}
}

func TestVethRouteAndCommand(t *testing.T) {
	a, b := create(t, "a"), create(t, "b")
	if err := Veth(a, "v0", b, "v1"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		a.AddAddr("v0", "10.1.0.1/24", "fd01::1/64"), b.AddAddr("v1", "10.1.0.2/24", "fd01::2/64"),
		b.AddAddr("lo", "10.9.0.1/32"), a.AddRoute("10.9.0.0/16", "10.1.0.2"), a.AddRoute("default", "fd01::2"),
		a.SetMTU("v0", 1400), a.Sysctl("net.ipv4.ip_forward", "1"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if mtu, err := a.MTU("v0"); err != nil || mtu != 1400 {
		t.Fatalf("MTU: %d %v", mtu, err)
	}
	for _, ip := range []string{"10.1.0.2", "10.9.0.1", "fd01::2"} {
		l, err := b.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := a.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
			t.Errorf("%s: %v", ip, err)
		} else {
			_ = c.Close()
		}
		_ = l.Close()
	}
	if c, err := a.DialContext(t.Context(), "tcp", "localhost:1"); err == nil || !strings.Contains(err.Error(), "localhost") {
		t.Errorf("dialled a name: %v %v", c, err)
	}
	out, err := a.Output(exec.Command("cat", "/proc/self/net/dev"))
	if err != nil || !strings.Contains(out, "v0:") {
		t.Fatalf("command was not inside: %q %v", out, err)
	}
	if _, err := a.Output(exec.Command("sh", "-c", "echo sorry >&2; exit 3")); err == nil || !strings.Contains(err.Error(), "sorry") {
		t.Fatalf("error of a failing command: %v", err)
	}
	if err := a.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		return check(string(b), "1\n", err)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestProcesses(t *testing.T) {
	a := create(t, "a")
	cmd := exec.Command("sleep", "60")
	if err := a.StartOn(cmd, []int{0}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pids, err := a.Processes()
	if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Fatalf("Processes: %v %v, want %d", pids, err, cmd.Process.Pid)
	}
	st, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(st), "Cpus_allowed_list:\t0\n") {
		t.Fatalf("not bound to CPU 0: %v\n%s", err, st)
	}
}

func check(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

func TestSweep(t *testing.T) {
	testName(t, "root")
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead, err := process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mine, err := Temp("mine")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mine.Remove() }()
	left, err := Create(fmt.Sprintf("%s%s-1-left", TempPrefix, dead))
	if err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	if err := left.Start(sleep); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	_ = sleep.Wait()
	if Exists(left.Name()) {
		t.Error("namespace of a dead process is still there")
	}
	if !Exists(mine.Name()) {
		t.Error("own namespace was swept")
	}
}
