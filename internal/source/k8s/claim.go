package k8s

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// claim is what is kept of what is said of an endpoint.
type claim struct {
	since    int64 // who came later has the greater one
	prefixes []netip.Prefix
	own      string // of an endpoint of this node, all that is said; "": it is another node's
	fault    string // why it is not believed
}

// heard is what is said of an endpoint, by a CiliumEndpoint or a slice.
type heard struct {
	claim
	rows []model.IPEntry // of another node's that is believed
}

// same says whether two say the same, whenever.
func (h *heard) same(o *heard) bool {
	return h.own == o.own && h.fault == o.fault && reflect.DeepEqual(h.rows, o.rows)
}

// publishable says whether an identity may come from another node for a workload. Never host, world or the like: that would be a
// way around policy.
func publishable(id model.IdentityID) bool {
	return !id.Local() && (id >= model.IdentityUserMin || id == model.IdentityHealth || id == model.IdentityInit)
}

// read says what an object is to be believed.
func (p *Endpoints) read(o *ciliumv2.CiliumEndpoint) *heard {
	h := &heard{}
	st := &o.Status
	if p.ours(o) {
		body, err := json.Marshal(st)
		if err != nil { // it differs from what was to be there
			body = []byte(err.Error())
		}
		h.own = string(body)
		return h
	}
	if st.Identity == nil || st.Networking == nil {
		return h // its agent is not so far yet
	}
	h.since = o.CreationTimestamp.UnixNano()
	refuse := func(why string) *heard { return &heard{claim: claim{fault: why}} }
	node, err := netip.ParseAddr(st.Networking.Node)
	id := model.IdentityID(st.Identity.ID)
	switch {
	case err != nil || node.Zone() != "":
		return refuse("no address of its node")
	case st.Identity.ID < 0 || st.Identity.ID != int64(id) || !publishable(id):
		return refuse("its identity is not for other nodes")
	}
	for _, pair := range st.Networking.Addressing {
		for _, text := range []string{pair.IPv4, pair.IPv6} {
			if text == "" {
				continue
			}
			ip, err := netip.ParseAddr(text)
			if err != nil || ip.Zone() != "" || ip.Is4In6() {
				return refuse("address " + text)
			}
			e := model.IPEntry{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Identity: id, Tunnel: node.Unmap(), Source: model.IPSourceCustomResource, NoMasq: true,
				Name: o.Name, Namespace: o.Namespace}
			for _, np := range st.NamedPorts {
				if proto, err := model.ParseServiceProto(np.Protocol); err == nil && np.Port > 0 && np.Port <= 65535 {
					e.NamedPorts = append(e.NamedPorts, model.NamedPort{Name: np.Name, Port: uint16(np.Port), Proto: proto})
				}
			}
			h.rows = append(h.rows, e)
			h.prefixes = append(h.prefixes, e.Prefix)
		}
	}
	return h
}

// set brings an endpoint's addresses into the table; nil: it is gone.
func (p *Endpoints) set(x *table.Txn[netip.Prefix, model.IPEntry], n name, h *heard) {
	old := p.has[n]
	delete(p.has, n)
	for _, prefix := range old.prefixes {
		if h == nil || !slices.Contains(h.prefixes, prefix) {
			p.leave(x, n, prefix)
		}
	}
	if h == nil {
		return
	}
	if h.fault != "" && h.fault != old.fault {
		p.s.log.Warn("CiliumEndpoint not used", "namespace", n.namespace, "name", n.name, "err", h.fault)
	}
	p.has[n] = h.claim
	for _, e := range h.rows {
		p.enter(x, n, e)
	}
}

// known is what is said of an endpoint, as set has it.
func (p *Endpoints) known(x *table.Txn[netip.Prefix, model.IPEntry], n name) *heard {
	h := &heard{claim: p.has[n]}
	for _, prefix := range h.prefixes {
		e, rival := p.rivals[prefix][n]
		if !rival {
			e, _ = x.Get(prefix)
		}
		h.rows = append(h.rows, e)
	}
	return h
}

func ownerOf(e model.IPEntry) name { return name{e.Namespace, e.Name} }

// enter gives an address to who claims it, or lets it be decided where others claim it too.
func (p *Endpoints) enter(x *table.Txn[netip.Prefix, model.IPEntry], n name, e model.IPEntry) {
	old, had := x.Get(e.Prefix)
	rivals := p.rivals[e.Prefix]
	if had && rivals == nil && ownerOf(old) != n {
		rivals = map[name]model.IPEntry{ownerOf(old): old}
		p.rivals[e.Prefix] = rivals
	}
	if rivals != nil {
		rivals[n] = e
		p.decide(x, e.Prefix)
	} else if !had || !reflect.DeepEqual(old, e) {
		x.Set(e.Prefix, e)
	}
}

// leave takes an address from who claimed it.
func (p *Endpoints) leave(x *table.Txn[netip.Prefix, model.IPEntry], n name, prefix netip.Prefix) {
	rivals := p.rivals[prefix]
	if rivals == nil {
		x.Delete(prefix)
		return
	}
	delete(rivals, n)
	p.decide(x, prefix)
	if len(rivals) == 1 {
		delete(p.rivals, prefix)
	}
}

// decide says who has an address that several claim: the younger one. Objects say when they were made. Of what slices say it is known
// only what was there when the other one came: of two that came together neither is believed, so that nobody passes for the other.
func (p *Endpoints) decide(x *table.Txn[netip.Prefix, model.IPEntry], prefix netip.Prefix) {
	var who name
	tie := false
	for n := range p.rivals[prefix] {
		switch c := cmp.Compare(p.has[n].since, p.has[who].since); {
		case who == (name{}) || c > 0:
			who, tie = n, false
		case c < 0:
		case p.sliced != nil:
			tie = true
		case n.String() > who.String():
			who = n
		}
	}
	if tie {
		p.s.log.Warn("address not used: two endpoints have it, and it is not known which one is younger", "address", prefix.Addr())
		x.Delete(prefix)
		return
	}
	best := p.rivals[prefix][who]
	if old, ok := x.Get(prefix); !ok || !reflect.DeepEqual(old, best) {
		x.Set(prefix, best)
	}
}
