package policy

import (
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// API servers outside have identities as prefixes of policies do, and one label more: kube-apiserver. They have them whether or not a policy
// names them, so that flows tell them from the rest of the world.

// prefixLabels are the labels of the identity of a prefix outside.
func (e *Engine) prefixLabels(p netip.Prefix) model.Labels {
	ls := cidrLabels(e.cfg, p)
	if e.api[p] {
		ls = model.NewLabels(append(ls, model.Label{Source: model.SourceReserved, Key: model.IdentityKubeAPI.String()})...)
	}
	return ls
}

// takeAPIServers makes these addresses the API servers.
func (e *Engine) takeAPIServers(addrs []netip.Addr) {
	next := map[netip.Prefix]bool{}
	for _, a := range addrs {
		next[netip.PrefixFrom(a, a.BitLen())] = true
	}
	was := e.api
	e.api = next
	for p := range was {
		if !next[p] {
			e.useAPIServer(p, -1)
		}
	}
	for p := range next {
		if !was[p] {
			e.useAPIServer(p, 1)
		}
	}
}

// useAPIServer counts a use of an API server's address, and gives it the labels that it has now.
func (e *Engine) useAPIServer(p netip.Prefix, by int) {
	if !e.serves(p) {
		return
	}
	x := e.prefixes[p]
	if x == nil {
		x = e.addPrefix(p, e.freeID())
	}
	x.refs += by
	e.pending.prefixes[p] = true
	// Sets in use tell it from what is around it, which they do of no other prefix that comes or goes.
	e.pending.mutated[x.id.peer] = true
	e.pending.served = e.pending.served || by < 0
	if id := newIdentity(e.cfg, x.id.peer.Identity, e.prefixLabels(p), nil, true); !id.labels.Equal(x.id.labels) {
		e.index.remove(x.id)
		e.unplace(x.id)
		x.id = id
		e.index.add(id)
		e.pending.ids[id.peer] = id
	}
}

// serves says whether addresses of a prefix's IP version are in use.
func (e *Engine) serves(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return e.cfg.IPv4
	}
	return e.cfg.IPv6
}
