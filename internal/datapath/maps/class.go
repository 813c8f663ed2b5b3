package maps

import (
	"maps"
	"slices"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// PutClasses writes the classes of peers, those in areas first: an identity is known from the moment on when it has a class
// by itself.
func (m *Maps) PutClasses(rows map[model.Peer]model.ClassID) error {
	ids, at := newBatch[model.IdentityID, model.ClassID](len(rows)), newBatch[layout.Peer, model.ClassID](0)
	for _, p := range slices.SortedFunc(maps.Keys(rows), model.ComparePeers) {
		if p.Area == 0 {
			ids.add(p.Identity, rows[p])
		} else {
			at.add(peerTo(p), rows[p])
		}
	}
	if err := at.put(m.classAt); err != nil {
		return err
	}
	return ids.put(m.class)
}

// DeleteClasses removes the classes of peers. Without one of its own a peer in an area is judged by its identity, or refused
// where the area is strict; an identity without one is unknown here.
func (m *Maps) DeleteClasses(peers []model.Peer) error {
	var ids []model.IdentityID
	var at []layout.Peer
	for _, p := range peers {
		if p.Area == 0 {
			ids = append(ids, p.Identity)
		} else {
			at = append(at, peerTo(p))
		}
	}
	if err := delAll(m.class, ids); err != nil {
		return err
	}
	return delAll(m.classAt, at)
}

// Class reads the class of a peer.
func (m *Maps) Class(p model.Peer) (model.ClassID, bool, error) {
	if p.Area != 0 {
		return get[layout.Peer, model.ClassID](m.classAt, peerTo(p))
	}
	return get[model.IdentityID, model.ClassID](m.class, p.Identity)
}

// Classes reads all rows.
func (m *Maps) Classes() (map[model.Peer]model.ClassID, error) {
	out := map[model.Peer]model.ClassID{}
	err := each(m.class, func(k *model.IdentityID, v *model.ClassID) bool {
		out[model.Peer{Identity: *k}] = *v
		return true
	})
	if err != nil {
		return nil, err
	}
	err = each(m.classAt, func(k *layout.Peer, v *model.ClassID) bool {
		out[model.Peer{Identity: model.IdentityID(k.Identity), Area: model.AreaID(k.Area)}] = *v
		return true
	})
	return out, err
}

func peerTo(p model.Peer) layout.Peer {
	return layout.Peer{Identity: uint32(p.Identity), Area: uint32(p.Area)}
}
