package bpftest_test

import (
	"fmt"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// configurations are all flags on, all off, and rows in which every two flags take all four combinations: each flag is on
// in another three of five rows, so any two of them meet in one, and each is somewhere without the other.
func configurations() []uint32 {
	sets := []uint32{0, bpftest.AllOff, bpftest.AllOn, 0, 0, 0, 0, 0}
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

// Every program object loads under all constants on, all off, and pairwise.
func TestConfigurations(t *testing.T) {
	e := bpftest.Load(t, bpftest.Config{Devices: 1})
	for name, open := range bpftest.Objects() {
		for _, set := range configurations() {
			spec, err := open()
			if err != nil {
				t.Fatal(err)
			}
			cfg := maps.Config{}
			if set != 0 {
				cfg = bpftest.Defaults()
				cfg.Flags = set
			}
			coll, err := e.LoadObject(spec, cfg)
			if err != nil {
				t.Fatal(fmt.Errorf("%s with flags %#x: %w", name, set, err))
			}
			coll.Close()
		}
	}
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
