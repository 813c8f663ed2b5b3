package app

import (
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// homes are the addresses where workloads and nodes live: as the address cache publishes them, and those of the subjects, which
// that hears of a little later. They remember which addresses may be news to the engine.
type homes struct {
	table *table.Table[netip.Addr, []model.IdentityID]
	snap  table.Snapshot[netip.Addr, []model.IdentityID] // of it, as last followed
	mine  map[netip.Addr]model.IdentityID                // of subjects
	dirty map[netip.Addr]bool                            // may be other than the engine has been given

	// What the engine has been given: what this snapshot says, but for some addresses.
	fed table.Snapshot[netip.Addr, []model.IdentityID]
	odd map[netip.Addr][]model.IdentityID
}

func newHomes() homes {
	return homes{mine: map[netip.Addr]model.IdentityID{}, dirty: map[netip.Addr]bool{}, odd: map[netip.Addr][]model.IdentityID{}}
}

func (h *homes) put(e model.Endpoint) {
	for _, a := range e.Addrs() {
		h.mine[a], h.dirty[a] = e.Identity, true
	}
}

func (h *homes) drop(e model.Endpoint) {
	for _, a := range e.Addrs() {
		delete(h.mine, a)
		h.dirty[a] = true
	}
}

// follow takes in what has changed in the table since the last time.
func (h *homes) follow() {
	was := h.snap
	h.snap = h.table.Snapshot()
	if keys, ok := h.table.Since(was.Revision()); ok {
		for _, a := range keys {
			h.dirty[a] = true
		}
		return
	}
	for a := range h.snap.All() {
		h.dirty[a] = true
	}
	for a := range was.All() {
		h.dirty[a] = true
	}
}

// who lives at an address, sorted, with subjects that come there.
func (h *homes) who(a netip.Addr, coming ...model.Endpoint) []model.IdentityID {
	said, _ := h.snap.Get(a)
	ids := slices.Clone(said)
	if id, ok := h.mine[a]; ok {
		ids = append(ids, id)
	}
	for _, e := range coming {
		if slices.Contains(e.Addrs(), a) {
			ids = append(ids, e.Identity)
		}
	}
	return sorted(ids)
}

// had is who the engine has been told lives at an address.
func (h *homes) had(a netip.Addr) []model.IdentityID {
	if ids, ok := h.odd[a]; ok {
		return ids
	}
	ids, _ := h.fed.Get(a)
	return sorted(slices.Clone(ids))
}

func sorted(ids []model.IdentityID) []model.IdentityID {
	slices.Sort(ids)
	return slices.Compact(ids)
}

// news compares the addresses that may have changed, and those of coming subjects, with what the engine has.
func (h *homes) news(coming ...model.Endpoint) (changed map[netip.Addr][]model.IdentityID, gone []netip.Addr) {
	changed = map[netip.Addr][]model.IdentityID{}
	at := map[netip.Addr][]model.Endpoint{}
	for _, e := range coming {
		for _, a := range e.Addrs() {
			at[a] = append(at[a], e)
		}
	}
	look := func(a netip.Addr) {
		now := h.who(a, at[a]...)
		switch had := h.had(a); {
		case slices.Equal(had, now):
		case len(now) == 0:
			gone = append(gone, a)
		default:
			changed[a] = now
		}
	}
	for a := range h.dirty {
		look(a)
	}
	for a := range at {
		if !h.dirty[a] {
			look(a)
		}
	}
	return changed, gone
}

// given notes that the engine has news, all that there was.
func (h *homes) given(changed map[netip.Addr][]model.IdentityID, gone []netip.Addr) {
	for a := range h.dirty {
		if _, ok := changed[a]; !ok {
			h.note(a, h.had(a))
		}
	}
	for a, ids := range changed {
		h.note(a, ids)
	}
	for _, a := range gone {
		h.note(a, nil)
	}
	h.fed, h.dirty = h.snap, map[netip.Addr]bool{}
}

// note is for before fed becomes snap: it keeps what the engine has of an address, where snap does not say so.
func (h *homes) note(a netip.Addr, ids []model.IdentityID) {
	said, _ := h.snap.Get(a)
	if slices.Equal(ids, sorted(slices.Clone(said))) {
		delete(h.odd, a)
	} else {
		h.odd[a] = ids
	}
}
