package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// Balancer turns services into what one node does with their frontends.
type Balancer struct {
	Self     model.Node
	Select   model.Selection // for services that do not say; SelectDefault is random
	Size     uint32          // of Maglev tables, one of TableSizes
	Seed     Seed
	Topology bool // new flows go to what is near, as backends say, also where their service says nothing
}

// Balance is what this node does with a service's frontend: one row; two where traffic from outside the cluster is confined to
// this node's backends and traffic from inside is not; none where the service is for the nodes of its backends only and this is
// none of them, or for other nodes. The service must be valid. Of old rows, if there are, Maglev tables are taken over where they still hold.
func (b *Balancer) Balance(s *model.Service, old []model.Balance) []model.Balance {
	if s.Elsewhere {
		return nil
	}
	backends := slices.Clone(s.Backends)
	slices.SortFunc(backends, func(x, y model.Backend) int {
		return cmp.Or(x.Addr.Compare(y.Addr), cmp.Compare(x.Port, y.Port), cmp.Compare(x.Proto, y.Proto))
	})
	switch s.Type {
	case model.ServiceClusterIP:
		return []model.Balance{b.row(s, s.Frontend.Scope, backends, s.InternalLocal, old)}
	case model.ServiceHostPort, model.ServiceLocalRedirect:
		// What no local backend answers is not this service's: the port is the node's own, the address somebody else's.
		if row := b.row(s, s.Frontend.Scope, backends, true, old); len(row.Slots)+len(row.Keep) > 0 {
			return []model.Balance{row}
		}
		return nil
	}
	if s.Frontend.Scope == model.ScopeInternal { // its external twin is a service of its own
		return []model.Balance{b.row(s, model.ScopeInternal, backends, false, old)}
	}
	rows := []model.Balance{b.row(s, model.ScopeExternal, backends, s.ExternalLocal, old)}
	if s.ExternalLocal { // the policy is about what comes from outside
		rows = append(rows, b.row(s, model.ScopeInternal, backends, false, old))
	}
	return rows
}

// row is the row for one scope. Backends that another node has are not kept under a Local policy either: a client's affinity
// must not lead there.
func (b *Balancer) row(s *model.Service, scope model.Scope, backends []model.Backend, local bool, old []model.Balance) model.Balance {
	if local {
		backends = slices.DeleteFunc(slices.Clone(backends), func(x model.Backend) bool { return !b.here(&x) })
	}
	r := model.Balance{Frontend: s.Frontend, ID: s.ID, Type: s.Type, Affinity: s.Affinity, Ranges: s.Ranges, RangesDeny: s.RangesDeny, Local: local}
	r.Frontend.Scope = scope
	var slots []model.Backend
	slots, r.Keep = choose(backends)
	if b.nearby(s) && !local && len(slots) > 0 && slots[0].State == model.BackendActive {
		var far []model.Backend
		slots, far = b.near(s, slots)
		r.Keep = append(r.Keep, far...)
	}
	how := s.Select
	if how == model.SelectDefault {
		how = b.Select
	}
	if how != model.SelectMaglev || len(slots) < 2 {
		r.Slots = spread(slots)
		return r
	}
	r.Slots = slots
	for i := range old {
		if o := &old[i]; len(o.Table) == int(b.Size) && slices.EqualFunc(o.Slots, slots, alike) {
			r.Table = o.Table
			return r
		}
	}
	r.Table = Maglev(slots, b.Size, b.Seed)
	return r
}

// alike says whether two backends are the same for a Maglev table.
func alike(a, b model.Backend) bool {
	return a.Addr == b.Addr && a.Port == b.Port && a.Proto == b.Proto && weight(&a) == weight(&b)
}

// here says whether a backend lives on this node: by the node's name if it is known, else by its address.
func (b *Balancer) here(x *model.Backend) bool {
	if x.Node != "" {
		return x.Node == b.Self.Name
	}
	return slices.Contains(b.Self.Addrs, x.Addr) ||
		slices.ContainsFunc(b.Self.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(x.Addr) })
}

// choose parts those that new flows get from those that only keep theirs. Terminating ones get new flows when nobody is active.
func choose(backends []model.Backend) (slots, keep []model.Backend) {
	want := model.BackendTerminating
	if slices.ContainsFunc(backends, func(b model.Backend) bool { return b.State == model.BackendActive }) {
		want = model.BackendActive
	}
	for _, b := range backends {
		if b.State == want {
			slots = append(slots, b)
		} else {
			keep = append(keep, b)
		}
	}
	return slots, keep
}

// maxSpread bounds how many slots weights make of a service: shares are as exact as that allows.
func maxSpread(backends int) uint64 { return max(256, 2*uint64(backends)) }

// spread repeats backends as often as their weights say, in lowest terms; every one is there at least once.
func spread(backends []model.Backend) []model.Backend {
	var sum, div uint64
	for i := range backends {
		w := weight(&backends[i])
		sum, div = sum+w, gcd(div, w)
	}
	if len(backends) == 0 || sum == div*uint64(len(backends)) {
		return backends
	}
	most := maxSpread(len(backends))
	var out []model.Backend
	for i := range backends {
		n := weight(&backends[i]) / div
		if total := sum / div; total > most {
			n = max(1, (n*most+total/2)/total)
		}
		for range n {
			out = append(out, backends[i])
		}
	}
	return out
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
