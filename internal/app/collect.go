package app

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
)

// news is what the tables hold and the engine does not know yet, with what is to be remembered once it does.
type news struct {
	changes policy.Changes
	fed     map[model.IdentityID]string
	rows    map[string]string
	first   []model.Endpoint // subjects of the first sync: those found at start
}

// collect compares the tables with what the engine has been given. It changes nothing.
func (p *policies) collect() (n news, err error) {
	snap := p.stored.Snapshot()
	c := &n.changes
	c.Revision = snap.Revision
	if n.rows, err = p.collectStored(c, snap); err != nil {
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
		if e, ok := p.subjects[id]; ok && !gone[id] {
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
	all := p.known(n.first...)
	n.fed = make(map[model.IdentityID]string, len(all))
	for id, row := range all {
		n.fed[id] = fingerprint(row)
		if p.fed[id] != n.fed[id] {
			c.Identities = append(c.Identities, row)
		}
	}
	for id := range p.fed {
		if _, ok := all[id]; !ok {
			c.DeleteIdentities = append(c.DeleteIdentities, id)
		}
	}
	return n, nil
}

// given notes that the engine has the news, whether the kernel takes them or not.
func (p *policies) given(n news) {
	p.fed, p.rows, p.reconfig = n.fed, n.rows, false
	clear(p.retell)
	for _, e := range n.first {
		p.subjects[e.ID] = e
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	for _, id := range n.changes.DeleteSubjects {
		delete(p.subjects, id)
		delete(p.forgotten, id)
	}
}

// known are the identities that packets may come with: those of the cluster and of remote nodes, those of the subjects
// (which must stay known as long as they have them, whatever the cluster says) and of coming ones, each with the named
// ports of its workloads everywhere.
func (p *policies) known(coming ...model.Endpoint) map[model.IdentityID]policy.Identity {
	all := map[model.IdentityID]policy.Identity{}
	for id, row := range p.ids.Snapshot().All() {
		all[id] = policy.Identity{Identity: row}
	}
	for _, row := range p.nodes() {
		all[row.ID] = policy.Identity{Identity: row}
	}
	for _, e := range p.subjects {
		addIdentity(all, e)
	}
	for _, e := range coming {
		addIdentity(all, e)
	}
	for _, ip := range p.ips.Snapshot().All() {
		if row, ok := all[ip.Identity]; ok && len(ip.NamedPorts) > 0 {
			row.NamedPorts = mergePorts(row.NamedPorts, ip.NamedPorts)
			all[ip.Identity] = row
		}
	}
	return all
}

// fingerprint tells whether anything about an identity has changed.
func fingerprint(row policy.Identity) string { return row.Labels.Key() + fmt.Sprint(row.NamedPorts) }

func addIdentity(all map[model.IdentityID]policy.Identity, e model.Endpoint) {
	if e.Identity == model.IdentityUnknown {
		return
	}
	row, ok := all[e.Identity]
	if !ok {
		row.Identity = model.Identity{ID: e.Identity, Labels: e.Labels}
	}
	row.NamedPorts = mergePorts(row.NamedPorts, e.NamedPorts)
	all[e.Identity] = row
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
