package maps

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/cilium/ebpf"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// DeniedState says which list the rows of denied sources are, and of which IP versions the datapath asks for prefixes.
type DeniedState struct {
	Revision         uint64
	Prefix4, Prefix6 bool
}

// DeniedMost is how many whole addresses can be denied, and how many prefixes.
const DeniedMost = 1 << 20

// Deny makes the rows of denied sources those of a list: gone and come are how it differs from what there is. Prefixes count
// once the state says that there are such rows. Absent rows that are to go are no error.
func (m *Maps) Deny(list, gone, come []netip.Prefix) error {
	goneExact, gonePrefixes := deniedKeys(gone)
	comeExact, comePrefixes := deniedKeys(come)
	if len(goneExact)+len(comeExact) > 0 {
		if err := m.denyAddrs(list, goneExact, comeExact); err != nil {
			return err
		}
	}
	if err := delAll(m.deniedLPM, gonePrefixes); err != nil {
		return err
	}
	return putAll(m.deniedLPM, comePrefixes, make([]uint8, len(comePrefixes)))
}

// denyAddrs changes the hash of whole addresses in place, or puts another one in its place where its size does not suit the list.
func (m *Maps) denyAddrs(list []netip.Prefix, gone, come []layout.Addr) error {
	set, err := m.deniedSet()
	if err != nil {
		return err
	}
	var room uint32
	if set != nil {
		defer func() {
			m.deniedExact.writes.Add(set.writes.Load())
			_ = set.Close()
		}()
		room = set.MaxEntries()
	}
	n := 0
	for _, p := range list {
		if p.IsSingleIP() {
			n++
		}
	}
	switch want := deniedRoom(n); {
	case want == 0:
		return del(m.deniedExact, uint32(0))
	case want <= room && room <= 8*want:
		if err := delAll(set, gone); err != nil {
			return err
		}
		return putAll(set, come, make([]uint8, len(come)))
	default:
		all, _ := deniedKeys(list)
		return m.replaceDenied(all, want)
	}
}

// deniedRoom is the size of a hash for so many addresses.
func deniedRoom(n int) uint32 {
	if n == 0 {
		return 0
	}
	return max(64, uint32(1)<<bits.Len(uint(n-1)))
}

// replaceDenied makes a hash of its own for the addresses and puts it, complete, into the place of the one that is there.
func (m *Maps) replaceDenied(all []layout.Addr, room uint32) error {
	spec := m.deniedSpec.Copy()
	spec.MaxEntries = room
	next, err := ebpf.NewMap(spec)
	if err != nil {
		return m.deniedExact.failed("write", err)
	}
	defer func() { _ = next.Close() }()
	if err := putAll(&handle{Map: next, name: PrefilterExact}, all, make([]uint8, len(all))); err != nil {
		return err
	}
	m.deniedExact.writes.Add(1)
	return m.deniedExact.failed("write", m.deniedExact.Put(uint32(0), next))
}

// deniedSet opens the hash of whole addresses; nil if there is none. The caller closes it.
func (m *Maps) deniedSet() (*handle, error) {
	var set *ebpf.Map
	err := m.deniedExact.Lookup(uint32(0), &set)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", PrefilterExact, err)
	}
	return &handle{Map: set, name: PrefilterExact}, nil
}

// deniedAddrs reads the whole addresses.
func (m *Maps) deniedAddrs() (out []netip.Prefix, err error) {
	set, err := m.deniedSet()
	if err != nil || set == nil {
		return nil, err
	}
	defer func() { _ = set.Close() }()
	err = each(set, func(k *layout.Addr, _ *uint8) bool {
		a := netip.AddrFrom16(k.B).Unmap()
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
		return true
	})
	return out, err
}

// Denied reads all denied sources, in no order.
func (m *Maps) Denied() ([]netip.Prefix, error) {
	out, err := m.deniedAddrs()
	if err != nil {
		return nil, err
	}
	err = each(m.deniedLPM, func(k *layout.PrefilterKey, _ *uint8) bool {
		out = append(out, k.Prefix())
		return true
	})
	return out, err
}

// PutDeniedState writes the state.
func (m *Maps) PutDeniedState(s DeniedState) error {
	v := layout.PrefilterState{Revision: s.Revision}
	for _, f := range []struct {
		set bool
		bit uint32
	}{{s.Prefix4, layout.PrefilterPrefix4}, {s.Prefix6, layout.PrefilterPrefix6}} {
		if f.set {
			v.Flags |= f.bit
		}
	}
	return put(m.prefilterState, uint32(0), v)
}

// DeniedState reads the state; as created it is zero.
func (m *Maps) DeniedState() (DeniedState, error) {
	v, _, err := get[uint32, layout.PrefilterState](m.prefilterState, 0)
	return DeniedState{Revision: v.Revision, Prefix4: v.Flags&layout.PrefilterPrefix4 != 0, Prefix6: v.Flags&layout.PrefilterPrefix6 != 0}, err
}

// PrefilterDrops is what was dropped because of its source, ever since the map was made.
func (m *Maps) PrefilterDrops() (packets, bytes uint64, err error) {
	var cpus []layout.Metric
	if err := m.prefilterCount.Lookup(uint32(0), &cpus); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", m.prefilterCount.name, err)
	}
	for _, c := range cpus {
		packets, bytes = packets+c.Count, bytes+c.Bytes
	}
	return packets, bytes, nil
}

func deniedKeys(ps []netip.Prefix) (exact []layout.Addr, prefixes []layout.PrefilterKey) {
	for _, p := range ps {
		if p.IsSingleIP() {
			exact = append(exact, layout.AddrFrom(p.Addr()))
		} else {
			prefixes = append(prefixes, layout.PrefilterKeyFrom(p))
		}
	}
	return exact, prefixes
}
