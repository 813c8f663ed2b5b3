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
	nodes func() []model.Identity // node-local identities of remote nodes

	idRev, ipRev uint64
	far          map[model.IdentityID]model.Identity                     // of nodes
	ported       map[netip.Prefix]model.IPEntry                          // rows of ips with named ports
	ports        map[model.IdentityID]map[netip.Prefix][]model.NamedPort // the same by identity
	subjects     map[uint16]model.Endpoint                               // as the engine has been given them
	users        map[model.IdentityID]map[uint16]bool                    // subjects by identity
	fed          map[model.IdentityID]policy.Identity                    // as the engine has been given them
	dirty        map[model.IdentityID]bool                               // may be other than fed
}

func newPeers() *peers {
	return &peers{homes: newHomes(), far: map[model.IdentityID]model.Identity{}, ported: map[netip.Prefix]model.IPEntry{},
		ports: map[model.IdentityID]map[netip.Prefix][]model.NamedPort{}, subjects: map[uint16]model.Endpoint{},
		users: map[model.IdentityID]map[uint16]bool{}, fed: map[model.IdentityID]policy.Identity{}, dirty: map[model.IdentityID]bool{}}
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

	far := map[model.IdentityID]model.Identity{}
	for _, row := range p.nodes() {
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
	if old, ok := p.ported[prefix]; ok {
		if old.Identity == e.Identity && slices.Equal(old.NamedPorts, e.NamedPorts) {
			return
		}
		delete(p.ported, prefix)
		delete(p.ports[old.Identity], prefix)
		if len(p.ports[old.Identity]) == 0 {
			delete(p.ports, old.Identity)
		}
		p.dirty[old.Identity] = true
	}
	if len(e.NamedPorts) == 0 {
		return
	}
	p.ported[prefix] = e
	if p.ports[e.Identity] == nil {
		p.ports[e.Identity] = map[netip.Prefix][]model.NamedPort{}
	}
	p.ports[e.Identity][prefix] = e.NamedPorts
	p.dirty[e.Identity] = true
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
		for _, ports := range p.ports[id] {
			row.NamedPorts = mergePorts(row.NamedPorts, ports)
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
