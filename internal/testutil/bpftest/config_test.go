package bpftest_test

import (
	"fmt"
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// Every program object loads under all constants on, all off, and pairs of them.
func TestConfigurations(t *testing.T) {
	e := bpftest.Load(t, bpftest.Config{})
	var flags []uint32
	for f := uint32(1); f <= bpftest.AllOn; f <<= 1 {
		if bpftest.AllOn&f != 0 {
			flags = append(flags, f)
		}
	}
	sets := map[uint32]bool{0: true, bpftest.AllOn: true, bpftest.AllOff: true}
	for i, a := range flags {
		sets[a] = true
		sets[bpftest.AllOn&^a] = true
		for _, b := range flags[:i] {
			sets[a|b] = true
			sets[bpftest.AllOff|a|b] = true
			sets[bpftest.AllOn&^(a|b)] = true
		}
	}
	if testing.Short() {
		sets = map[uint32]bool{0: true, bpftest.AllOn: true, bpftest.AllOff: true}
	}
	for name, open := range bpftest.Objects() {
		for set := range sets {
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
