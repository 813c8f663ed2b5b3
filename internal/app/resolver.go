package app

import (
	"net"
	"net/netip"
	"sync"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
	"github.com/hypha-net/hypha/internal/table"
)

// resolver names the numbers in flows from the agent's tables.
type resolver struct {
	endpoints  *table.Table[uint16, model.Endpoint]
	ips        *table.Table[netip.Prefix, model.IPEntry]
	identities func(model.IdentityID) (model.Labels, bool)
	rule       func(model.RuleID) (model.RuleRef, bool)
	service    func(addr netip.Addr, port uint16, proto uint8) (observe.Service, bool)

	mu    sync.Mutex
	local map[netip.Addr]uint16 // endpoint numbers by address, of snapshot seen
	seen  uint64
	links map[uint32]string // names of devices by index
}

// endpoint finds a local workload by address, with an index that is rebuilt when the table has changed.
func (r *resolver) endpoint(addr netip.Addr) (model.Endpoint, bool) {
	snap := r.endpoints.Snapshot()
	r.mu.Lock()
	if r.local == nil || r.seen != snap.Revision() {
		r.local = make(map[netip.Addr]uint16, 2*snap.Len())
		for id, e := range snap.All() {
			for _, a := range e.Addrs() {
				r.local[a] = id
			}
		}
		r.seen = snap.Revision()
		r.links = nil // devices come and go with endpoints; indexes are not reused soon
	}
	id, ok := r.local[addr]
	r.mu.Unlock()
	if !ok {
		return model.Endpoint{}, false
	}
	return snap.Get(id)
}

// Endpoint implements observe.Resolver.
func (r *resolver) Endpoint(addr netip.Addr, id uint16) (observe.Peer, bool) {
	if e, ok := r.endpoint(addr); ok && (id == 0 || e.ID == id) {
		return peerOf(e), true
	}
	if id != 0 { // its address has changed hands since the event
		if e, ok := r.endpoints.Get(id); ok {
			return peerOf(e), true
		}
	}
	if !addr.IsValid() {
		return observe.Peer{}, false
	}
	e, ok := r.ips.Get(netip.PrefixFrom(addr, addr.BitLen()))
	if !ok {
		return observe.Peer{}, false
	}
	return observe.Peer{Identity: e.Identity, Namespace: e.Namespace, Pod: e.Name}, true
}

func peerOf(e model.Endpoint) observe.Peer {
	return observe.Peer{ID: e.ID, Identity: e.Identity, Namespace: e.Namespace, Pod: e.Name, Labels: e.Labels}
}

// Identity implements observe.Resolver.
func (r *resolver) Identity(id model.IdentityID) (model.Labels, bool) { return r.identities(id) }

// Rule implements observe.Resolver.
func (r *resolver) Rule(id model.RuleID) (model.RuleRef, bool) { return r.rule(id) }

// Service implements observe.Resolver.
func (r *resolver) Service(addr netip.Addr, port uint16, proto uint8) (observe.Service, bool) {
	return r.service(addr, port, proto)
}

// Interface implements observe.Resolver.
func (r *resolver) Interface(index uint32) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name, ok := r.links[index]; ok {
		return name
	}
	if r.links == nil {
		r.links = map[uint32]string{}
	}
	name := ""
	if dev, err := net.InterfaceByIndex(int(index)); err == nil {
		name = dev.Name
	}
	r.links[index] = name
	return name
}
