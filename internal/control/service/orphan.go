package service

import (
	"net/netip"

	"github.com/hypha-net/hypha/internal/model"
)

// lose notes the backends that a service had and has no more; next is nil when it has gone as a whole.
func (p *Plan) lose(old, next *model.Service) {
	has := map[netip.AddrPort]bool{}
	if next != nil {
		has = endsOf(next.Backends)
	}
	for _, b := range old.Backends {
		if at := netip.AddrPortFrom(b.Addr, b.Port); !has[at] {
			p.left[at] = true
		}
	}
}

// Left are the places of backends that some service has lost since it was last called, nil: none. The map is the caller's.
func (p *Plan) Left() map[netip.AddrPort]bool {
	if len(p.left) == 0 {
		return nil
	}
	left := p.left
	p.left = map[netip.AddrPort]bool{}
	return left
}

// Orphans are those who talk to a backend that their frontend has no more: it was taken out of the service, or the service has
// gone. As long as it is in the service it is the service's, whatever its state and whether it is served or not.
func (p *Plan) Orphans(talks []model.Talk) (out []model.Talk) {
	ends := map[model.Frontend]map[netip.AddrPort]bool{} // of the places that were looked at
	has := func(at model.Frontend, back netip.AddrPort) bool {
		set, ok := ends[at]
		if !ok {
			set = p.endsAt(at)
			ends[at] = set
		}
		return set[back]
	}
	for _, t := range talks {
		at := model.Frontend{Addr: t.Front.Addr(), Port: t.Front.Port(), Proto: t.Proto}
		if has(at, t.Back) {
			continue
		}
		if at.Addr = unspecified(at.Addr); !has(at, t.Back) { // no port of the nodes either
			out = append(out, t)
		}
	}
	return out
}

// endsAt are the backends of all services that want a place.
func (p *Plan) endsAt(at model.Frontend) map[netip.AddrPort]bool {
	var all []model.Backend
	if pl := p.places[at]; pl != nil {
		for _, id := range pl.ids {
			all = append(all, p.services[id].Backends...)
		}
	}
	return endsOf(all)
}

func endsOf(backends []model.Backend) map[netip.AddrPort]bool {
	out := make(map[netip.AddrPort]bool, len(backends))
	for _, b := range backends {
		out[netip.AddrPortFrom(b.Addr, b.Port)] = true
	}
	return out
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
