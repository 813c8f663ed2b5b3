package app

import (
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// peers are the identities that packets may come with: those of the cluster and of remote nodes, those of the subjects
// (which must stay known as long as they have them, whatever the cluster says), each with the named ports of its
// workloads everywhere. It follows the tables and remembers which identities may have changed, so that a change among
// thousands costs no more than one among few.
type peers struct {
	homes homes
	ids   *table.Table[model.IdentityID, model.Identity]
	ips   *table.Table[netip.Prefix, model.IPEntry]
	nodes func() []model.Identity // node-local identities of remote nodes; the same slice: the same ones

	idRev, ipRev uint64
	farRows      []model.Identity                     // of nodes, as they were last
	far          map[model.IdentityID]model.Identity  // the same by number; not changed once it is made
	ported       map[netip.Prefix]*ported             // rows of ips with named ports
	ports        map[model.IdentityID][]*ported       // the same by identity
	subjects     map[uint16]model.Endpoint            // as the engine has been given them
	users        map[model.IdentityID]map[uint16]bool // subjects by identity
	fed          map[model.IdentityID]policy.Identity // as the engine has been given them
	dirty        map[model.IdentityID]bool            // may be other than fed
}

func newPeers() *peers {
	return &peers{homes: newHomes(), far: map[model.IdentityID]model.Identity{}, ported: map[netip.Prefix]*ported{},
		ports: map[model.IdentityID][]*ported{}, subjects: map[uint16]model.Endpoint{},
		users: map[model.IdentityID]map[uint16]bool{}, fed: map[model.IdentityID]policy.Identity{}, dirty: map[model.IdentityID]bool{}}
}

// ported are the named ports that some workloads of an identity have: those of most applications are all alike.
type ported struct {
	id    model.IdentityID
	ports []model.NamedPort
	users int // addresses
}

// put notes a subject, in place of what it was.
func (p *peers) put(e model.Endpoint) {
	p.drop(e.ID)
	p.subjects[e.ID] = e
	if p.users[e.Identity] == nil {
		p.users[e.Identity] = map[uint16]bool{}
	}
	p.users[e.Identity][e.ID] = true
	p.dirty[e.Identity] = true
	p.homes.put(e)
}

// drop forgets a subject.
func (p *peers) drop(id uint16) {
	e, ok := p.subjects[id]
	if !ok {
		return
	}
	delete(p.subjects, id)
	p.homes.drop(e)
	delete(p.users[e.Identity], id)
	if len(p.users[e.Identity]) == 0 {
		delete(p.users, e.Identity)
	}
	p.dirty[e.Identity] = true
}

// follow takes in what has changed in the tables since the last time.
func (p *peers) follow() {
	p.homes.follow()
	ids := p.ids.Snapshot()
	if keys, ok := p.ids.Since(p.idRev); ok {
		for _, id := range keys {
			p.dirty[id] = true
		}
	} else {
		for id := range ids.All() {
			p.dirty[id] = true
		}
		for id := range p.fed {
			p.dirty[id] = true
		}
	}
	p.idRev = ids.Revision()

	ips := p.ips.Snapshot()
	if keys, ok := p.ips.Since(p.ipRev); ok {
		for _, prefix := range keys {
			e, _ := ips.Get(prefix)
			p.port(prefix, e)
		}
	} else {
		for prefix := range p.ported {
			e, _ := ips.Get(prefix)
			p.port(prefix, e)
		}
		for prefix, e := range ips.All() {
			p.port(prefix, e)
		}
	}
	p.ipRev = ips.Revision()

	rows := p.nodes()
	if len(rows) == len(p.farRows) && (len(rows) == 0 || &rows[0] == &p.farRows[0]) {
		return
	}
	p.farRows = rows
	far := make(map[model.IdentityID]model.Identity, len(rows))
	for _, row := range rows {
		far[row.ID] = row
		if old, ok := p.far[row.ID]; !ok || !old.Labels.Equal(row.Labels) {
			p.dirty[row.ID] = true
		}
	}
	for id := range p.far {
		if _, ok := far[id]; !ok {
			p.dirty[id] = true
		}
	}
	p.far = far
}

// port notes the named ports of an address; the zero entry has none.
func (p *peers) port(prefix netip.Prefix, e model.IPEntry) {
	if old := p.ported[prefix]; old != nil {
		if old.id == e.Identity && slices.Equal(old.ports, e.NamedPorts) {
			return
		}
		delete(p.ported, prefix)
		if old.users--; old.users == 0 {
			p.ports[old.id] = slices.DeleteFunc(p.ports[old.id], func(x *ported) bool { return x == old })
			p.dirty[old.id] = true
		}
		if len(p.ports[old.id]) == 0 {
			delete(p.ports, old.id)
		}
	}
	if len(e.NamedPorts) == 0 {
		return
	}
	i := slices.IndexFunc(p.ports[e.Identity], func(x *ported) bool { return slices.Equal(x.ports, e.NamedPorts) })
	if i < 0 {
		i = len(p.ports[e.Identity])
		p.ports[e.Identity] = append(p.ports[e.Identity], &ported{id: e.Identity, ports: e.NamedPorts})
		p.dirty[e.Identity] = true
	}
	p.ported[prefix] = p.ports[e.Identity][i]
	p.ported[prefix].users++
}

// row is an identity as it is now, with coming subjects that are not noted yet; ok is false when packets cannot come with it.
func (p *peers) row(id model.IdentityID, coming ...model.Endpoint) (row policy.Identity, ok bool) {
	if id == model.IdentityUnknown {
		return row, false
	}
	if row.Identity, ok = p.far[id]; !ok {
		row.Identity, ok = p.ids.Get(id)
	}
	add := func(e model.Endpoint) {
		if e.Identity != id {
			return
		}
		if !ok {
			row.Identity, ok = model.Identity{ID: id, Labels: e.Labels}, true
		}
		row.NamedPorts = mergePorts(row.NamedPorts, e.NamedPorts)
	}
	for user := range p.users[id] {
		add(p.subjects[user])
	}
	for _, e := range coming {
		add(e)
	}
	if ok {
		for _, x := range p.ports[id] {
			row.NamedPorts = mergePorts(row.NamedPorts, x.ports)
		}
	}
	return row, ok
}

// news compares the identities that may have changed with what the engine has, with coming subjects that are not noted
// yet. It changes nothing.
func (p *peers) news(coming ...model.Endpoint) (changed []policy.Identity, gone []model.IdentityID) {
	byID := map[model.IdentityID][]model.Endpoint{}
	for _, e := range coming {
		byID[e.Identity] = append(byID[e.Identity], e)
	}
	look := func(id model.IdentityID) {
		row, ok := p.row(id, byID[id]...)
		had, fed := p.fed[id]
		switch {
		case ok && !(fed && samePeer(had, row)):
			changed = append(changed, row)
		case !ok && fed:
			gone = append(gone, id)
		}
	}
	for id := range p.dirty {
		look(id)
	}
	for id := range byID {
		if !p.dirty[id] {
			look(id)
		}
	}
	return changed, gone
}

// given notes that the engine has the news.
func (p *peers) given(changed []policy.Identity, gone []model.IdentityID) {
	for _, row := range changed {
		p.fed[row.ID] = row
	}
	for _, id := range gone {
		delete(p.fed, id)
	}
	clear(p.dirty)
}

func samePeer(a, b policy.Identity) bool {
	return a.Labels.Equal(b.Labels) && slices.Equal(a.NamedPorts, b.NamedPorts)
}
