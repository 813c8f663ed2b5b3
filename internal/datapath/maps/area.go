package maps

import (
	"maps"
	"net/netip"
	"slices"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// PutAreas writes areas, the narrowest first: an address must not be found in a wider one that it is not in once all are there.
func (m *Maps) PutAreas(rows map[netip.Prefix]model.Area) error {
	prefixes := slices.SortedFunc(maps.Keys(rows), func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
	for _, p := range prefixes {
		v := layout.Area{Id: uint32(rows[p].ID)}
		if rows[p].Strict {
			v.Flags |= layout.AreaStrict
		}
		if err := put(m.area, layout.AreaKeyFrom(p), v); err != nil {
			return err
		}
	}
	return nil
}

// DeleteAreas removes areas in this order; absent is no error.
func (m *Maps) DeleteAreas(prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		if err := del(m.area, layout.AreaKeyFrom(p)); err != nil {
			return err
		}
	}
	return nil
}

// Areas reads all rows.
func (m *Maps) Areas() (map[netip.Prefix]model.Area, error) {
	out := map[netip.Prefix]model.Area{}
	err := each(m.area, func(k *layout.AreaKey, v *layout.Area) bool {
		out[k.Prefix()] = model.Area{ID: model.AreaID(v.Id), Strict: v.Flags&layout.AreaStrict != 0}
		return true
	})
	return out, err
}
