package policy

import (
	"maps"
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// kernel is what the kernel holds once all plans so far are applied.
type kernel struct {
	rows      map[model.SetID]map[model.ClassID][2]*model.PolicyList
	classes   map[model.Peer]model.ClassID
	members   map[model.ClassID]map[model.Peer]bool // the inverse of classes; no empty ones
	prefixes  map[netip.Prefix]model.IdentityID
	areas     map[netip.Prefix]model.Area
	endpoints map[uint16]model.SetID

	lastSet   model.SetID // highest number ever seen
	lastClass model.ClassID
}

func newKernel(s model.PolicyState) *kernel {
	k := &kernel{rows: map[model.SetID]map[model.ClassID][2]*model.PolicyList{}, classes: map[model.Peer]model.ClassID{},
		members: map[model.ClassID]map[model.Peer]bool{}, prefixes: map[netip.Prefix]model.IdentityID{}, areas: map[netip.Prefix]model.Area{},
		endpoints: map[uint16]model.SetID{}}
	for key, l := range s.Lists {
		if key.Dir <= model.Egress {
			k.setList(key, &l)
		}
	}
	for id, c := range s.Classes {
		k.setClass(id, c)
	}
	maps.Copy(k.prefixes, s.Prefixes)
	maps.Copy(k.areas, s.Areas)
	for e, s := range s.EndpointSets {
		k.endpoints[e] = s
		k.lastSet = max(k.lastSet, s)
	}
	return k
}

func (k *kernel) setList(key model.PolicyKey, l *model.PolicyList) {
	if k.rows[key.Set] == nil {
		k.rows[key.Set] = map[model.ClassID][2]*model.PolicyList{}
	}
	row := k.rows[key.Set][key.Class]
	row[key.Dir] = l
	k.rows[key.Set][key.Class] = row
	k.lastSet, k.lastClass = max(k.lastSet, key.Set), max(k.lastClass, key.Class)
}

func (k *kernel) setClass(id model.Peer, c model.ClassID) {
	k.dropClass(id)
	k.classes[id] = c
	if k.members[c] == nil {
		k.members[c] = map[model.Peer]bool{}
	}
	k.members[c][id] = true
	k.lastClass = max(k.lastClass, c)
}

func (k *kernel) dropClass(id model.Peer) {
	c, ok := k.classes[id]
	if !ok {
		return
	}
	delete(k.classes, id)
	if delete(k.members[c], id); len(k.members[c]) == 0 {
		delete(k.members, c)
	}
}

// around is the area that the datapath finds for the addresses of a prefix; ok is false where there is none.
func (k *kernel) around(prefix netip.Prefix) (a model.Area, ok bool) {
	for {
		if a, ok = k.areas[prefix]; ok || prefix.Bits() == 0 {
			return a, ok
		}
		prefix = netip.PrefixFrom(prefix.Addr(), prefix.Bits()-1).Masked()
	}
}

// standIn is the peer as which another one is judged as long as it has no class of its own; ok is false if it is dropped.
func (k *kernel) standIn(id *identity) (peer model.Peer, ok bool) {
	peer = model.Peer{Identity: id.peer.Identity}
	a, found := k.around(id.prefix)
	if !found {
		return peer, true
	}
	at := model.Peer{Identity: id.peer.Identity, Area: a.ID}
	if _, ok := k.classes[at]; ok {
		return at, true
	}
	return peer, !a.Strict
}
