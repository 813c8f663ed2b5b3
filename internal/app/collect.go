package app

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
)

// news is what the tables hold and the engine does not know yet, with what is to be remembered once it does.
type news struct {
	changes policy.Changes
	stored  state.PolicySnapshot
	servers []netip.Addr     // API servers outside
	first   []model.Endpoint // subjects of the first sync: those found at start
}

// collect compares the tables with what the engine has been given.
func (p *policies) collect() (n news, err error) {
	n.stored = p.stored.Snapshot()
	c := &n.changes
	c.Revision = n.stored.Revision
	if err := p.collectStored(c, n.stored); err != nil {
		return n, err
	}
	if p.reconfig {
		cfg := p.cfg
		c.Config = &cfg
	}
	p.stateMu.Lock()
	gone := maps.Clone(p.forgotten)
	p.stateMu.Unlock()
	c.DeleteSubjects = slices.Collect(maps.Keys(gone))
	for id := range p.retell {
		if e, ok := p.peers.subjects[id]; ok && !gone[id] {
			c.Subjects = append(c.Subjects, subjectOf(e))
		}
	}
	if !p.hasStarted() {
		for id, e := range p.local.Snapshot().All() {
			if e.Identity != model.IdentityUnknown && !gone[id] { // one without is brought by Enforce once it has one
				c.Subjects, n.first = append(c.Subjects, subjectOf(e)), append(n.first, e)
			}
		}
	}
	n.servers = p.servers
	if now, known := p.outsideServers(); known && !slices.Equal(now, p.servers) {
		n.servers, c.APIServers = now, &now
	}
	p.peers.follow()
	c.Identities, c.DeleteIdentities = p.peers.news(n.first...)
	c.Addresses, c.DeleteAddresses = p.peers.homes.news(n.first...)
	return n, nil
}

// given notes that the engine has the news, whether the kernel takes them or not.
func (p *policies) given(n news) {
	if p.seen.Changed() != n.stored.Changed() {
		p.rules.Clear() // a policy imported again has another revision, and perhaps other labels
	}
	p.seen, p.reconfig, p.servers = n.stored, false, n.servers
	clear(p.retell)
	p.peers.given(n.changes.Identities, n.changes.DeleteIdentities)
	p.peers.homes.given(n.changes.Addresses, n.changes.DeleteAddresses)
	for _, e := range n.first {
		p.peers.put(e)
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	for _, id := range n.changes.DeleteSubjects {
		p.peers.drop(id)
		delete(p.forgotten, id)
	}
}

// mergePorts is the sorted union of two lists.
func mergePorts(a, b []model.NamedPort) []model.NamedPort {
	if len(b) == 0 {
		return a
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, func(x, y model.NamedPort) int {
		return slices.Compare([]string{x.Name, fmt.Sprintf("%05d/%03d", x.Port, x.Proto)}, []string{y.Name, fmt.Sprintf("%05d/%03d", y.Port, y.Proto)})
	})
	return slices.Compact(out)
}
