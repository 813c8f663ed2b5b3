package maps

import (
	"errors"
	"fmt"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// PutLists writes compiled lists. Lists of more than layout.PolicyListMax entries go to the overflow map, their rows before the
// value that points to them. After an error some lists are written; none is in part. A list that is in use should
// not be changed in place: while a long one is, packets may see a mixture.
func (m *Maps) PutLists(lists map[model.PolicyKey]model.PolicyList) error {
	ks := make([]layoutKey, 0, len(lists))
	vs := make([]layout.PolicyValue, 0, len(lists))
	var shrunk []layoutKey
	for k, l := range lists {
		lk := keyTo(k)
		v := layout.PolicyValue{DefaultRule: uint32(l.DefaultRule), DefaultVerdict: l.DefaultVerdict}
		if len(l.Entries) <= layout.PolicyListMax {
			v.Count = uint8(len(l.Entries))
			for i, e := range l.Entries {
				v.Entry[i] = entryTo(e)
			}
			if m.long[lk] != nil {
				shrunk = append(shrunk, lk)
			}
		} else {
			rows, err := overflowRows(k, l.Entries)
			if err != nil {
				return m.policy.failed("write", err)
			}
			if err := m.putOverflow(lk, rows); err != nil {
				return fmt.Errorf("store list of %d entries: %w", len(l.Entries), err)
			}
			v.Flags = layout.PolicyOverflow
		}
		ks, vs = append(ks, lk), append(vs, v)
	}
	if err := putAll(m.policy, ks, vs); err != nil {
		return err
	}
	var failed error
	for _, k := range shrunk {
		failed = errors.Join(failed, m.dropOverflow(k, nil))
	}
	return failed
}

// DeleteLists removes lists, the values before the overflow rows they point to. Absent is no error.
func (m *Maps) DeleteLists(keys []model.PolicyKey) error {
	ks := make([]layoutKey, len(keys))
	for i, k := range keys {
		ks[i] = keyTo(k)
	}
	if err := delAll(m.policy, ks); err != nil {
		return err
	}
	var failed error
	for _, k := range ks {
		failed = errors.Join(failed, m.dropOverflow(k, nil))
	}
	return failed
}

// Lists reads all lists, as they were given to PutLists.
func (m *Maps) Lists() (map[model.PolicyKey]model.PolicyList, error) {
	out := map[model.PolicyKey]model.PolicyList{}
	var long []layoutKey
	err := each(m.policy, func(k *layoutKey, v *layout.PolicyValue) bool {
		l := model.PolicyList{DefaultVerdict: v.DefaultVerdict, DefaultRule: model.RuleID(v.DefaultRule)}
		if v.Flags&layout.PolicyOverflow != 0 {
			long = append(long, *k)
		}
		for i := range min(int(v.Count), layout.PolicyListMax) {
			l.Entries = append(l.Entries, entryFrom(&v.Entry[i]))
		}
		out[keyFrom(k)] = l
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, k := range long {
		l := out[keyFrom(&k)]
		if l.Entries, err = m.storedList(k); err != nil {
			return nil, err
		}
		out[keyFrom(&k)] = l
	}
	return out, nil
}

// Judge asks a list as the datapath does: the entry that decides for a protocol and port, or ok = false for the
// list's default. It reads the kernel's rows; there must be a row for the key.
func (m *Maps) Judge(k model.PolicyKey, proto uint8, port uint16) (e model.PolicyEntry, ok bool, err error) {
	lk := keyTo(k)
	v, found, err := get[layoutKey, layout.PolicyValue](m.policy, lk)
	if err != nil || !found {
		return e, false, errors.Join(err, fmt.Errorf("read %s: no row for %+v", m.policy.name, k))
	}
	if v.Flags&layout.PolicyOverflow == 0 {
		for i := range v.Count {
			e := entryFrom(&v.Entry[i])
			if e.Proto == 0 || e.Proto == proto && e.PortLo <= port && port <= e.PortHi {
				return e, true, nil
			}
		}
		return e, false, nil
	}
	for _, at := range []struct {
		proto uint8
		port  uint16
	}{{proto, port}, {0, 0}} {
		rv, found, err := get[overflowKey, layout.PolicyEntry](m.overflow, overflowKey{
			Prefixlen: layout.PolicyOverflowExactPort, Set: lk.Set, Class: lk.Class, Dir: uint8(lk.Dir),
			Proto: at.proto, Port: be16(at.port)})
		if err != nil || found {
			return entryFrom(&rv), found, err
		}
	}
	return e, false, nil
}

func keyTo(k model.PolicyKey) layoutKey {
	return layoutKey{Set: uint32(k.Set), Class: uint32(k.Class), Dir: uint32(k.Dir)}
}

func keyFrom(k *layoutKey) model.PolicyKey {
	return model.PolicyKey{Set: model.SetID(k.Set), Class: model.ClassID(k.Class), Dir: model.Direction(k.Dir)}
}

func entryTo(e model.PolicyEntry) layout.PolicyEntry {
	return layout.PolicyEntry{PortLo: e.PortLo, PortHi: e.PortHi, Proto: e.Proto, Verdict: e.Verdict,
		ProxyPort: e.ProxyPort, Rule: uint32(e.Rule)}
}

func entryFrom(e *layout.PolicyEntry) model.PolicyEntry {
	return model.PolicyEntry{PortLo: e.PortLo, PortHi: e.PortHi, Proto: e.Proto, Verdict: e.Verdict,
		ProxyPort: e.ProxyPort, Rule: model.RuleID(e.Rule)}
}
