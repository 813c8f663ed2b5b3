package bpftest_test

import (
	"fmt"
	stdmaps "maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// configurations are all flags on, all off, and rows in which every two flags take the other two combinations: each flag is
// on in another three of six rows, so each of any two is somewhere without the other.
func configurations() []uint32 {
	sets := []uint32{0, bpftest.AllOff, bpftest.AllOn, 0, 0, 0, 0, 0, 0}
	rows := sets[3:]
	flag := uint32(1)
	for a := range rows {
		for b := range a {
			for c := range b {
				for flag&bpftest.AllOn == 0 && flag < bpftest.AllOn {
					flag <<= 1
				}
				for _, row := range []int{a, b, c} {
					rows[row] |= flag & bpftest.AllOn
				}
				flag <<= 1
			}
		}
	}
	return sets
}

// limit is what the verifier of Linux 5.2 and newer looks at before it gives up, most what a program may make of it: the rest
// is for kernels to come, whose verifiers count otherwise.
const (
	limit = 1000000
	most  = limit * 70 / 100
)

// Every program object loads under all constants on, all off, and pairwise, and the verifier is nowhere near its limit.
func TestCase39Verifier(t *testing.T) {
	c := score.Start(t, "39", "verifier, every configuration")
	e := bpftest.Load(t, bpftest.Config{Devices: 1})
	retval := features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval) == nil
	worst := map[string]int{} // instructions looked at, by program
	loaded := 0
	for name, open := range bpftest.Objects() {
		for _, set := range configurations() {
			cfg := maps.Config{}
			if set != 0 {
				cfg = bpftest.Defaults()
				cfg.Flags = set
			}
			if !retval {
				cfg.Flags &^= maps.ConfigRetval // as the loader does
			}
			spec, err := open()
			if err != nil {
				t.Fatal(err)
			}
			coll, err := e.LoadObject(spec, cfg)
			if err != nil {
				t.Errorf("%s with flags %#x: %v", name, set, err)
				continue
			}
			for program, p := range coll.Programs {
				n, err := bpftest.Verified(p)
				if err != nil {
					t.Errorf("%s with flags %#x: %v", program, set, err)
				}
				worst[program] = max(worst[program], n)
				loaded++
			}
			coll.Close()
		}
	}
	var text []string
	for _, program := range slices.Sorted(stdmaps.Keys(worst)) {
		n := worst[program]
		t.Attr(program, strconv.Itoa(n))
		text = append(text, fmt.Sprintf("%s %d", program, n))
		if n > most {
			t.Errorf("%s: the verifier looks at %d instructions, which leaves less than 30 %% of its %d", program, n, limit)
		}
	}
	c.Count(loaded, "programs loaded")
	c.Say("instructions of %d at most: %s", limit, strings.Join(text, ", "))
}

func TestConfigurationsArePairwise(t *testing.T) {
	sets := configurations()
	for a := uint32(1); a <= bpftest.AllOn; a <<= 1 {
		for b := uint32(1); b < a; b <<= 1 {
			seen := map[[2]bool]bool{}
			for _, s := range sets {
				seen[[2]bool{s&a != 0, s&b != 0}] = true
			}
			if len(seen) != 4 {
				t.Errorf("flags %#x and %#x: %v", a, b, seen)
			}
		}
	}
}
