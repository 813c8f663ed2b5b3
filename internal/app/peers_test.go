package app

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// However tables and subjects change, the engine comes to know what looking at all of them says; and a change of one
// identity looks at no other.
func TestPeersFollow(t *testing.T) {
	ids := []model.IdentityID{1000, 1001, 1002, model.IdentityScopeRemote, model.IdentityScopeRemote + 1}
	rapid.Check(t, func(t *rapid.T) {
		p := newPeers()
		p.homes.table = table.New[netip.Addr, []model.IdentityID]("homes", table.Addr)
		p.ids = table.New[model.IdentityID, model.Identity]("identities", table.Uint[model.IdentityID])
		p.ips = table.New[netip.Prefix, model.IPEntry]("addresses", table.Prefix)
		far := map[model.IdentityID]model.Identity{}
		p.nodes = func() []model.Identity { return slices.Collect(maps.Values(far)) }
		engine := map[model.IdentityID]policy.Identity{} // what it has been told
		id := func() model.IdentityID { return rapid.SampledFrom(ids).Draw(t, "id") }
		labels := func() model.Labels {
			return model.NewLabels(model.Label{Source: model.SourceK8s, Key: "app", Value: fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "app"))})
		}
		ports := func() (out []model.NamedPort) {
			for range rapid.IntRange(0, 2).Draw(t, "ports") {
				out = append(out, model.NamedPort{Name: "web", Port: uint16(rapid.IntRange(80, 82).Draw(t, "port")), Proto: 6})
			}
			return out
		}
		for range rapid.IntRange(1, 60).Draw(t, "changes") {
			switch rapid.IntRange(0, 8).Draw(t, "kind") {
			case 0:
				x := id()
				p.ids.Set(x, model.Identity{ID: x, Labels: labels()})
			case 1:
				p.ids.Delete(id())
			case 2:
				a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 3).Draw(t, "address"))}), 32)
				p.ips.Set(a, model.IPEntry{Prefix: a, Identity: id(), NamedPorts: ports()})
			case 3:
				p.ips.Delete(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 3).Draw(t, "address"))}), 32))
			case 4:
				x := id()
				far[x] = model.Identity{ID: x, Labels: labels()}
			case 5:
				delete(far, id())
			case 6:
				p.put(model.Endpoint{ID: uint16(rapid.IntRange(1, 3).Draw(t, "endpoint")), Identity: id(), Labels: labels(), NamedPorts: ports()})
			case 7:
				p.drop(uint16(rapid.IntRange(1, 3).Draw(t, "endpoint")))
			case 8: // more than the tables remember
				p.ids.Update(func(x *table.Txn[model.IdentityID, model.Identity]) {
					for i := range model.IdentityID(600) {
						x.Set(5000+i, model.Identity{ID: 5000 + i})
					}
				})
			}
			if rapid.IntRange(0, 2).Draw(t, "skip") == 0 {
				continue
			}
			p.follow()
			changed, gone := p.news()
			for _, row := range changed {
				engine[row.ID] = row
			}
			for _, x := range gone {
				delete(engine, x)
			}
			p.given(changed, gone)
			if d := cmp.Diff(allPeers(p, far), engine); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// allPeers looks at everything there is.
func allPeers(p *peers, far map[model.IdentityID]model.Identity) map[model.IdentityID]policy.Identity {
	all := map[model.IdentityID]policy.Identity{}
	for id, row := range p.ids.Snapshot().All() {
		all[id] = policy.Identity{Identity: row}
	}
	for id, row := range far {
		all[id] = policy.Identity{Identity: row}
	}
	for _, e := range p.subjects {
		row, ok := all[e.Identity]
		if !ok {
			// Of several workloads of an identity that nobody else knows any may lend its labels: they are the same.
			row.Identity = model.Identity{ID: e.Identity, Labels: p.fed[e.Identity].Labels}
			for user := range p.users[e.Identity] {
				if len(p.users[e.Identity]) == 1 {
					row.Labels = p.subjects[user].Labels
				}
			}
		}
		row.NamedPorts = mergePorts(row.NamedPorts, e.NamedPorts)
		all[e.Identity] = row
	}
	for _, ip := range p.ips.Snapshot().All() {
		if row, ok := all[ip.Identity]; ok && len(ip.NamedPorts) > 0 {
			row.NamedPorts = mergePorts(row.NamedPorts, ip.NamedPorts)
			all[ip.Identity] = row
		}
	}
	return all
}

// A change among many costs a look at what it is about.
func TestPeersLookAtWhatChanged(t *testing.T) {
	p := newPeers()
	p.homes.table = table.New[netip.Addr, []model.IdentityID]("homes", table.Addr)
	p.ids = table.New[model.IdentityID, model.Identity]("identities", table.Uint[model.IdentityID])
	p.ips = table.New[netip.Prefix, model.IPEntry]("addresses", table.Prefix)
	p.nodes = func() []model.Identity { return nil }
	for i := range model.IdentityID(3000) {
		p.ids.Set(1000+i, model.Identity{ID: 1000 + i})
	}
	p.follow()
	p.given(p.news())
	p.ids.Set(1007, model.Identity{ID: 1007, Labels: model.NewLabels(model.Label{Source: model.SourceK8s, Key: "app", Value: "x"})})
	p.follow()
	if len(p.dirty) != 1 || !p.dirty[1007] {
		t.Fatalf("looks at %d identities", len(p.dirty))
	}
	if changed, gone := p.news(); len(changed) != 1 || changed[0].ID != 1007 || len(gone) != 0 {
		t.Errorf("%v %v", changed, gone)
	}
}
