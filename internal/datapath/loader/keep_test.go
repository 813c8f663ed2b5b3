package loader_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// A loader takes the programs of the one before it if, and only if, it would load the very same: same objects, constants
// and maps. Those that nothing runs any more go.
func TestKeep(t *testing.T) {
	const all = 8
	dir := pintest.Dir(t)
	node := netns.New(t, "node")
	node.In(func() error {
		m := openMaps(t, dir)
		cfg := options(false, filepath.Join(dir, "links"))
		cfg.Programs = filepath.Join(dir, "progs")
		// programs adopts and returns the numbers of the pinned programs, by name.
		programs := func(cfg loader.Config) map[string]ebpf.ProgramID {
			t.Helper()
			l := newLoader(t, cfg, m)
			if _, err := l.Adopt(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(cfg.Programs)
			if err != nil {
				t.Fatal(err)
			}
			ids := map[string]ebpf.ProgramID{}
			for _, e := range entries {
				p, err := ebpf.LoadPinnedProgram(filepath.Join(cfg.Programs, e.Name()), nil)
				if err != nil {
					t.Fatal(err)
				}
				info, err := p.Info()
				if err != nil {
					t.Fatal(err)
				}
				ids[e.Name()], _ = info.ID()
				_ = p.Close()
			}
			if len(ids) != all {
				t.Fatalf("pinned programs: %v", ids)
			}
			return ids
		}
		same := func(a, b map[string]ebpf.ProgramID) (n int) {
			for name, id := range a {
				if b[name] == id {
					n++
				}
			}
			return n
		}
		first := programs(cfg)
		if again := programs(cfg); same(first, again) != all {
			t.Errorf("loaded anew without need: %v, then %v", first, again)
		}
		other := cfg
		other.Options.Trace = false
		second := programs(other)
		if same(first, second) != 0 {
			t.Errorf("other constants, the same programs: %v", second)
		}
		// A set that is not complete is not used.
		var names []string
		for name := range second {
			names = append(names, name)
		}
		slices.Sort(names)
		if err := os.Remove(filepath.Join(cfg.Programs, names[0])); err != nil {
			t.Fatal(err)
		}
		if third := programs(other); same(second, third) != 0 {
			t.Errorf("a part of the old set was used: %v, then %v", second, third)
		}
		// Other maps, other programs.
		third := programs(other)
		if err := os.Remove(filepath.Join(dir, "maps", "ct_v1")); err != nil {
			t.Fatal(err)
		}
		m = openMaps(t, dir)
		if fourth := programs(other); same(third, fourth) != 0 {
			t.Errorf("programs that use a map which is gone: %v", fourth)
		}
		return nil
	})
}
