package maps

import (
	"errors"
	"net/netip"
	"time"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Frontend is a row of lb_frontend_v1: what becomes of new flows to a service.
type Frontend struct {
	Service    model.ServiceID
	Type       model.ServiceType
	Slots      uint32 // slot set; 0: nobody is there
	Count      uint32 // slots of the set
	Table      uint32 // length of its Maglev table; 0: random selection
	Affinity   uint32 // seconds; 0: none
	Ranges     uint32 // set of prefixes that may come from outside; 0: everybody may
	RangesDeny bool   // they may not, but everybody else
	Local      bool   // slots were cut to this node's own backends
}

// PutFrontend writes the row of a frontend.
func (m *Maps) PutFrontend(f model.Frontend, v Frontend) error {
	return put(m.lbFrontend, frontendKeyTo(f), frontendTo(&v))
}

// PutFrontends is PutFrontend for many at once. When it fails, what it has written stays.
func (m *Maps) PutFrontends(fs []model.Frontend, vs []Frontend) error {
	rows := newBatch[layout.LBFrontendKey, layout.LBFrontend](len(fs))
	for i, f := range fs {
		rows.add(frontendKeyTo(f), frontendTo(&vs[i]))
	}
	return rows.put(m.lbFrontend)
}

// DeleteFrontend removes the row of a frontend; absent is no error.
func (m *Maps) DeleteFrontend(f model.Frontend) error { return del(m.lbFrontend, frontendKeyTo(f)) }

// Frontends reads all rows.
func (m *Maps) Frontends() (map[model.Frontend]Frontend, error) {
	out := map[model.Frontend]Frontend{}
	err := each(m.lbFrontend, func(k *layout.LBFrontendKey, v *layout.LBFrontend) bool {
		out[frontendKeyFrom(k)] = frontendFrom(v)
		return true
	})
	return out, err
}

func frontendKeyTo(f model.Frontend) layout.LBFrontendKey {
	return layout.LBFrontendKey{Addr: layout.AddrFrom(f.Addr), Port: be16(f.Port), Proto: f.Proto, Scope: uint8(f.Scope)}
}

func frontendKeyFrom(k *layout.LBFrontendKey) model.Frontend {
	return model.Frontend{Addr: anyAddr(&k.Addr), Port: be16(k.Port), Proto: k.Proto, Scope: model.Scope(k.Scope)}
}

func frontendTo(v *Frontend) layout.LBFrontend {
	row := layout.LBFrontend{Service: uint32(v.Service), Type: uint8(v.Type), Slots: v.Slots, Count: v.Count, Table: v.Table,
		Affinity: v.Affinity, Ranges: v.Ranges}
	if v.RangesDeny {
		row.Flags |= layout.LBRangesDeny
	}
	if v.Local {
		row.Flags |= layout.LBLocal
	}
	return row
}

func frontendFrom(v *layout.LBFrontend) Frontend {
	return Frontend{Service: model.ServiceID(v.Service), Type: model.ServiceType(v.Type), Slots: v.Slots, Count: v.Count, Table: v.Table,
		Affinity: v.Affinity, Ranges: v.Ranges, RangesDeny: v.Flags&layout.LBRangesDeny != 0,
		Local: v.Flags&layout.LBLocal != 0}
}

// anyAddr is an address of which the zero one means something: any address of the node.
func anyAddr(a *layout.Addr) netip.Addr { return netip.AddrFrom16(a.B).Unmap() }

// FrontendAddr is a row of lb_address_v1: what services make of an address.
type FrontendAddr struct {
	VIP  bool // what no frontend of it wants is refused
	Node bool // the node's own
}

// PutFrontendAddr writes the row of an address. Without it no frontend of the address is found.
func (m *Maps) PutFrontendAddr(a netip.Addr, v FrontendAddr) error {
	return put(m.lbAddress, layout.AddrFrom(a), frontendAddrTo(v))
}

// PutFrontendAddrs is PutFrontendAddr for many at once. When it fails, what it has written stays.
func (m *Maps) PutFrontendAddrs(as []netip.Addr, vs []FrontendAddr) error {
	rows := newBatch[layout.Addr, uint32](len(as))
	for i, a := range as {
		rows.add(layout.AddrFrom(a), frontendAddrTo(vs[i]))
	}
	return rows.put(m.lbAddress)
}

// DeleteFrontendAddr removes the row of an address; absent is no error.
func (m *Maps) DeleteFrontendAddr(a netip.Addr) error { return del(m.lbAddress, layout.AddrFrom(a)) }

// FrontendAddrs reads all rows.
func (m *Maps) FrontendAddrs() (map[netip.Addr]FrontendAddr, error) {
	out := map[netip.Addr]FrontendAddr{}
	err := each(m.lbAddress, func(k *layout.Addr, v *uint32) bool {
		out[anyAddr(k)] = frontendAddrFrom(*v)
		return true
	})
	return out, err
}

func frontendAddrTo(v FrontendAddr) (row uint32) {
	if v.VIP {
		row |= layout.LBAddressVIP
	}
	if v.Node {
		row |= layout.LBAddressNode
	}
	return row
}

func frontendAddrFrom(v uint32) FrontendAddr {
	return FrontendAddr{VIP: v&layout.LBAddressVIP != 0, Node: v&layout.LBAddressNode != 0}
}

// PutRanges writes a set of source prefixes, complete or not at all. No frontend may refer to its number yet.
func (m *Maps) PutRanges(id uint32, ps []netip.Prefix) error {
	for _, p := range ps {
		if err := put(m.lbSource, sourceKeyTo(id, p), uint8(1)); err != nil {
			return errors.Join(err, m.DeleteRanges(id, ps))
		}
	}
	return nil
}

// DeleteRanges removes a set of source prefixes. Those that are not there are no error.
func (m *Maps) DeleteRanges(id uint32, ps []netip.Prefix) error {
	var failed error
	for _, p := range ps {
		failed = errors.Join(failed, del(m.lbSource, sourceKeyTo(id, p)))
	}
	return failed
}

// Ranges reads all sets of source prefixes.
func (m *Maps) Ranges() (map[uint32][]netip.Prefix, error) {
	out := map[uint32][]netip.Prefix{}
	err := each(m.lbSource, func(k *layout.LBSourceKey, _ *uint8) bool {
		out[k.Ranges] = append(out[k.Ranges], sourceFrom(k))
		return true
	})
	return out, err
}

// A source prefix is keyed as a prefix of the ipcache is, with the set in front of the address.
func sourceKeyTo(id uint32, p netip.Prefix) layout.LBSourceKey {
	k := layout.IPCacheKeyFrom(p)
	return layout.LBSourceKey{Prefixlen: k.Prefixlen, Ranges: id, Addr: k.Addr}
}

func sourceFrom(k *layout.LBSourceKey) netip.Prefix {
	return layout.IPCacheKey{Prefixlen: k.Prefixlen, Addr: k.Addr}.Prefix()
}

// Stay is a row of lb_affinity_v1: a client and the backend that it stays with.
type Stay struct {
	Service model.ServiceID
	Client  string // an address, "netns N" or "socket N"
	Backend netip.AddrPort
	Age     time.Duration // since the last use
}

func stayFrom(k *layout.LBAffinityKey, v *layout.LBAffinity, now uint64) Stay {
	s := Stay{Service: model.ServiceID(k.Service), Client: addr(k.Client.Netip()),
		Backend: netip.AddrPortFrom(v.Addr.Netip(), be16(v.Port)), Age: time.Duration(now - min(now, v.Used))}
	switch k.Kind {
	case layout.LBClientNetns:
		s.Client = "netns " + cookie(&k.Client)
	case layout.LBClientSocket:
		s.Client = "socket " + cookie(&k.Client)
	}
	return s
}
