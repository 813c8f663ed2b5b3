package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/process"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

func TestMain(m *testing.M) {
	if called, err := Main(os.Args); called {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestHierarchies(t *testing.T) {
	const table = `25 20 0:22 / /sys rw - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
32 30 0:28 /.. /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 /some/../group /sys/fs/cgroup/part rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 / /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw,nsdelegate
35 20 0:29 / /mnt/elsewhere rw - cgroup2 cgroup2 rw
`
	want := []hierarchy{
		{"/sys/fs/cgroup/systemd", "cgroup", "name=systemd"}, {"/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"},
		{"/sys/fs/cgroup/unified", "cgroup2", ""},
	}
	if diff := cmp.Diff(want, hierarchies(table), cmp.AllowUnexported(hierarchy{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// eventually tries for a while.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestMachine starts one, looks at it from inside and outside, and ends it.
func TestMachine(t *testing.T) {
	ns := netns.New(t, "machine")
	dir := t.TempDir()
	name := "hypha-mt" + fmt.Sprint(os.Getpid())
	root := filepath.Join(dir, "root")
	if err := Furnish(root, "thing"); err != nil {
		t.Fatal(err)
	}
	on, err := Delegate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Withdraw(on); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := RemoveGroups(name); err != nil {
			t.Error(err)
		}
	})
	groups, err := MakeGroups(name)
	if err != nil {
		t.Fatal(err)
	}
	panics, err := os.ReadFile("/proc/sys/kernel/panic")
	if err != nil {
		t.Fatal(err)
	}
	before := mountPoints(t, "self")
	const look = `hostname; echo pid $$ of $(ls -d /proc/[0-9]* | wc -l); cat /proc/self/cgroup; ls /sys/class/net; ls /
echo 77 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic; touch /usr/x || echo refused
mkdir /run/m && mount -t tmpfs x /run/m && echo mounted; ls /opt/there; sleep 1000 & echo end; exec sleep 1000`
	s := Spec{
		Name: "thing", Root: root, Groups: groups,
		Settings: map[string]string{"kernel/panic": "10"}, Binds: []Bind{{From: dir, To: "/opt/there"}},
		Programs: []Program{
			{Name: "look", Args: []string{"sh", "-c", look}}, {Name: "short", Args: []string{"sh", "-c", "exit 3"}},
			{Name: "none", Args: []string{"no-such-program"}},
		},
	}
	pidFile := filepath.Join(dir, "pid")
	t.Cleanup(func() { // whatever happens, it ends
		if id, err := process.ReadFile(pidFile); err == nil {
			if err := id.Stop(0); err != nil {
				t.Error(err)
			}
		}
	})
	id, err := Start(t.Context(), ns.NS, s, filepath.Join(dir, "spec.json"), pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var said string
	eventually(t, func() error {
		b, err := os.ReadFile(s.Log("look"))
		if said = string(b); err == nil && !strings.Contains(said, "\nend\n") {
			err = fmt.Errorf("it said %q", said)
		}
		if err != nil {
			own, _ := os.ReadFile(s.Log(Own))
			err = fmt.Errorf("%w\n%s", err, own)
		}
		return err
	})
	for _, want := range []string{"thing\n", "cpu:/\n", "\nlo\n", "\n77\n", "refused\n", "mounted\n", "spec.json"} {
		if !strings.Contains(said, want) {
			t.Errorf("inside is no %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "eth0") || strings.Contains(said, name) {
		t.Errorf("it sees what is outside:\n%s", said)
	}
	eventually(t, func() error { // a program that ends is started again, one that cannot be started is tried again
		states, err := States(root)
		if err != nil {
			return err
		}
		if len(states) != 3 || states[0].Starts != 1 || states[0].PID == 0 || states[1].Starts < 2 || states[1].Ended != "exit status 3" ||
			states[2].Starts < 2 || !strings.Contains(states[2].Ended, "no-such-program") {
			return fmt.Errorf("%+v", states)
		}
		return nil
	})
	if now, err := os.ReadFile("/proc/sys/kernel/panic"); err != nil || string(now) != string(panics) {
		t.Errorf("a setting of the whole kernel was changed: %s %v", now, err)
	}
	// Other tests mount things meanwhile: what counts is what the machine has mounted itself.
	inside := mountPoints(t, strconv.Itoa(id.PID))
	if !inside["/run/m"] {
		t.Errorf("inside is no /run/m: %v", inside)
	}
	for at := range mountPoints(t, "self") {
		if strings.HasPrefix(at, root) || inside[at] && !before[at] {
			t.Errorf("mount %s is to be seen outside", at)
		}
	}
	if pids, err := ns.Processes(); err != nil || len(pids) < 3 {
		t.Errorf("processes %v %v", pids, err)
	}
	if err := id.Stop(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if pids, err := ns.Processes(); err != nil || len(pids) > 0 {
			return fmt.Errorf("processes have outlived the machine: %v %w", pids, err)
		}
		return nil
	})
	if err := RemoveGroups(name); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if _, err := os.Stat(g); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", g, err)
		}
	}
	if err := os.RemoveAll(root); err != nil {
		t.Error(err)
	}
}

func TestMainIsForMachines(t *testing.T) {
	if called, err := Main([]string{"kube", "up", "x"}); called || err != nil {
		t.Error(called, err)
	}
	if called, err := Main([]string{word, first, filepath.Join(t.TempDir(), "none")}); !called || !errors.Is(err, fs.ErrNotExist) {
		t.Error(called, err)
	}
}

// mountPoints are where a process, by number or "self", sees something mounted.
func mountPoints(t *testing.T, pid string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", pid, "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			out[f[4]] = true
		}
	}
	return out
}
