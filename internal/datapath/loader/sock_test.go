package loader_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/hypha-net/hypha/bpf/sock"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/testutil/cgroup"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

func TestMain(m *testing.M) { cgroup.Main(m) }

// running are the numbers of the programs on a control group, by hook.
func running(t *testing.T, dir string) map[ebpf.AttachType]ebpf.ProgramID {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[ebpf.AttachType]ebpf.ProgramID{}
	for name, hook := range sock.Hooks() {
		got, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: hook})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Programs) > 1 {
			t.Errorf("%d programs where %s belongs", len(got.Programs), name)
		}
		for _, p := range got.Programs {
			out[hook] = p.ID
		}
	}
	return out
}

// Programs of sockets outlive their loader, are replaced by the next one's, come back when their pins or they themselves are
// taken away, follow the configuration to another control group, and go when there is none.
func TestSockets(t *testing.T) {
	parent := cgroup.Path(t)
	groups := [2]string{filepath.Join(parent, "a"), filepath.Join(parent, "b")}
	for _, g := range groups {
		if err := os.Mkdir(g, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(g) })
	}
	dir := pintest.Dir(t)
	netns.New(t, "node").In(func() error {
		m := openMaps(t, dir)
		cfg := options(false, filepath.Join(dir, "links"))
		t.Cleanup(func() { _ = loader.Unpin(cfg.Links) })
		next := func() *loader.Loader {
			t.Helper()
			l := newLoader(t, cfg, m)
			if _, err := l.Adopt(); err != nil {
				t.Fatal(err)
			}
			return l
		}
		check := func(l *loader.Loader, dir string, want int) map[ebpf.AttachType]ebpf.ProgramID {
			t.Helper()
			got := running(t, dir)
			if len(got) != want {
				t.Errorf("%d programs on %s, want %d", len(got), filepath.Base(dir), want)
			}
			if err := l.SocketsAttached(); err != nil {
				t.Error(err)
			}
			return got
		}
		all := len(sock.Hooks())
		cfg.Cgroup, cfg.Programs = groups[0], filepath.Join(dir, "progs")
		l := next()
		first := check(l, groups[0], all)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := running(t, groups[0]); len(got) != all {
			t.Fatalf("%d programs are left without their loader", len(got))
		}
		// The same again: the same programs stay.
		l = next()
		for hook, id := range check(l, groups[0], all) {
			if first[hook] != id {
				t.Errorf("%v: program %d was replaced by %d though nothing changed", hook, first[hook], id)
			}
		}
		// A pin that somebody removed, and a link that somebody took off.
		if err := os.Remove(filepath.Join(cfg.Links, sock.Connect4)); err != nil {
			t.Fatal(err)
		}
		if l.SocketsAttached() == nil {
			t.Error("a removed pin is not missed")
		}
		have, err := link.LoadPinnedLink(filepath.Join(cfg.Links, sock.Connect6), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := have.(interface{ Detach() error }).Detach(); err != nil {
			t.Fatal(err)
		}
		_ = have.Close()
		if l.SocketsAttached() == nil {
			t.Error("a detached program is not missed")
		}
		if err := l.AttachSockets(); err != nil {
			t.Fatal(err)
		}
		check(l, groups[0], all)
		_ = l.Close()
		// Other constants: every program is replaced, on the same link.
		cfg.Options.SockHost = true
		l = next()
		for hook, id := range check(l, groups[0], all) {
			if first[hook] == id {
				t.Errorf("%v: the old program runs", hook)
			}
		}
		_ = l.Close()
		cfg.Cgroup = groups[1]
		l = next()
		check(l, groups[1], all)
		check(l, groups[0], 0)
		_ = l.Close()
		cfg.Cgroup = ""
		l = next()
		check(l, groups[1], 0)
		_ = l.Close()
		// Cleanup takes them off too, whoever holds them.
		cfg.Cgroup = groups[0]
		l = next()
		if err := loader.Unpin(cfg.Links); err != nil {
			t.Fatal(err)
		}
		if got := running(t, groups[0]); len(got) != 0 {
			t.Errorf("%d programs are left after cleanup", len(got))
		}
		return l.Close()
	})
}
