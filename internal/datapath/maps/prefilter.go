package maps

import (
	"fmt"
	"net/netip"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// DeniedState says which list the rows of denied sources are, and which of them the datapath asks for.
type DeniedState struct {
	Revision         uint64
	Exact            bool // whole addresses
	Prefix4, Prefix6 bool // prefixes of these IP versions
}

// PutDenied writes the rows of denied sources: whole addresses into the hash, the others into the trie. They count once
// the state says that there are such rows.
func (m *Maps) PutDenied(ps []netip.Prefix) error {
	exact, prefixes := deniedKeys(ps)
	if err := putAll(m.deniedExact, exact, make([]uint8, len(exact))); err != nil {
		return err
	}
	return putAll(m.deniedLPM, prefixes, make([]uint8, len(prefixes)))
}

// DeleteDenied removes rows of denied sources; absent ones are no error.
func (m *Maps) DeleteDenied(ps []netip.Prefix) error {
	exact, prefixes := deniedKeys(ps)
	if err := delAll(m.deniedExact, exact); err != nil {
		return err
	}
	return delAll(m.deniedLPM, prefixes)
}

// Denied reads all denied sources, in no order.
func (m *Maps) Denied() (out []netip.Prefix, err error) {
	err = each(m.deniedExact, func(k *layout.Addr, _ *uint8) bool {
		out = append(out, deniedAddr(k))
		return true
	})
	if err != nil {
		return nil, err
	}
	err = each(m.deniedLPM, func(k *layout.PrefilterKey, _ *uint8) bool {
		out = append(out, k.Prefix())
		return true
	})
	return out, err
}

// DeniedRoom is how many whole addresses and how many prefixes there can be.
func (m *Maps) DeniedRoom() (exact, prefixes uint32) {
	return m.deniedExact.MaxEntries(), m.deniedLPM.MaxEntries()
}

// PutDeniedState writes the state.
func (m *Maps) PutDeniedState(s DeniedState) error {
	v := layout.PrefilterState{Revision: s.Revision}
	for _, f := range []struct {
		set bool
		bit uint32
	}{{s.Exact, layout.PrefilterExact}, {s.Prefix4, layout.PrefilterPrefix4}, {s.Prefix6, layout.PrefilterPrefix6}} {
		if f.set {
			v.Flags |= f.bit
		}
	}
	return put(m.prefilterState, uint32(0), v)
}

// DeniedState reads the state; as created it is zero.
func (m *Maps) DeniedState() (DeniedState, error) {
	v, _, err := get[uint32, layout.PrefilterState](m.prefilterState, 0)
	return DeniedState{Revision: v.Revision, Exact: v.Flags&layout.PrefilterExact != 0,
		Prefix4: v.Flags&layout.PrefilterPrefix4 != 0, Prefix6: v.Flags&layout.PrefilterPrefix6 != 0}, err
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

func deniedAddr(k *layout.Addr) netip.Prefix {
	a := netip.AddrFrom16(k.B).Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}
