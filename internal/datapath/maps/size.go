package maps

import (
	"fmt"
	"math"
	"math/bits"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// DefaultRatio is the part of the machine's memory that the maps may take when no size is configured.
const DefaultRatio = 0.0025

// Shares of that memory for the tables that the kernel allocates in full. What remains is for the bucket arrays
// and rows of the others, which grow with use.
const (
	ctShare  = 0.30
	natShare = 0.14

	affinityShare = 0.03
	reverseShare  = 0.10
)

// Bounds of derived sizes, in rows.
const (
	ctFloor, ctCeiling   = 65536, 4 << 20
	natFloor, natCeiling = 32768, 4 << 20

	affinityFloor, affinityCeiling = 16384, 1 << 20
	reverseFloor, reverseCeiling   = 32768, 4 << 20
	sizeStep                       = 4096 // derived sizes are multiples, so that a little less memory after a reboot changes none
)

// rowOverhead is what the kernel adds to a row of an LRU hash: its head (48 bytes) and its share of the bucket array.
const rowOverhead = 48 + 16

// lbFrontends is how many rows lb_frontend_v1 has as declared.
const lbFrontends = 65536

// DefaultRing is the size in bytes of one CPU's event ring.
const DefaultRing = 1 << 20

// resize sets the sizes that cfg wants; a zero in cfg means derived from mem (bytes) or, for the maps that grow with
// use, as declared.
func resize(specs map[string]*ebpf.MapSpec, cfg Config, mem uint64, cpus int) error {
	ratio := cfg.MemRatio
	if ratio == 0 {
		ratio = DefaultRatio
	}
	if ratio < 0 || ratio > 1 {
		return fmt.Errorf("map size ratio %v: want a part of the memory, between 0 and 1", ratio)
	}
	budget := float64(mem) * ratio
	set := func(name string, want uint32) {
		if want != 0 {
			specs[name].MaxEntries = want
		}
	}
	derive := func(name string, want uint32, share float64, lo, hi uint32) {
		if want == 0 {
			s := specs[name]
			rows := budget * share / float64(s.KeySize+s.ValueSize+rowOverhead)
			want = min(max(uint32(min(rows, float64(hi)))/sizeStep*sizeStep, lo), hi)
		}
		set(name, want)
	}
	derive(CT, cfg.CT, ctShare, ctFloor, ctCeiling)
	derive(NAT, cfg.NAT, natShare, natFloor, natCeiling)
	set(Policy, cfg.Policy)
	set(Overflow, cfg.Policy)
	set(IPCacheExact, cfg.IPCache)
	set(IPCache, cfg.IPCache)
	derive(LBAffinity, 0, affinityShare, affinityFloor, affinityCeiling)
	derive(LBReverse, 0, reverseShare, reverseFloor, reverseCeiling)
	for _, name := range []string{LBAddress, LBFrontend, LBSource, LBMaglev, LBMember, LBSlot} {
		// As many to a frontend as declared.
		set(name, uint32(min(uint64(cfg.Services)*uint64(specs[name].MaxEntries/lbFrontends), math.MaxInt32)))
	}

	ring := cfg.Ring
	if ring == 0 {
		ring = DefaultRing
	}
	if ring < uint32(os.Getpagesize()) || bits.OnesCount32(ring) != 1 {
		return fmt.Errorf("event ring of %d bytes: want a power of two, at least one page (%d)", ring, os.Getpagesize())
	}
	events := specs[Events]
	events.MaxEntries = uint32(cpus)
	events.InnerMap.MaxEntries = ring
	return nil
}

// memory is the machine's memory in bytes.
func memory() (uint64, error) {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	return uint64(si.Totalram) * uint64(si.Unit), nil
}

// specs are the maps as declared, by name.
func specs() (map[string]*ebpf.MapSpec, error) {
	spec, err := layout.Spec()
	if err != nil {
		return nil, fmt.Errorf("read map layouts: %w", err)
	}
	return spec.Maps, nil
}
