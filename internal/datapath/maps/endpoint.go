package maps

import (
	"net/netip"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Endpoint is a row of endpoints_v1: the local workload that owns an address.
type Endpoint struct {
	ID       uint16
	IfIndex  uint32 // host side of its device pair
	Identity model.IdentityID
	Set      model.SetID
	Audit    bool
	NoMasq   bool    // it leaves the cluster under its own address
	MAC      [6]byte // the workload's
	HostMAC  [6]byte
}

// PutEndpoint writes the row of one address.
func (m *Maps) PutEndpoint(a netip.Addr, e Endpoint) error {
	m.endpointMu.Lock()
	defer m.endpointMu.Unlock()
	return m.putEndpoint(a, e)
}

func (m *Maps) putEndpoint(a netip.Addr, e Endpoint) error {
	v := layout.Endpoint{Ifindex: e.IfIndex, Identity: uint32(e.Identity), PolicySet: uint32(e.Set), Id: e.ID,
		Mac: e.MAC, HostMac: e.HostMAC}
	if e.Audit {
		v.Flags |= layout.EndpointAudit
	}
	if e.NoMasq {
		v.Flags |= layout.EndpointNoMasq
	}
	return put(m.endpoints, layout.AddrFrom(a), v)
}

// DeleteEndpoint removes the row of one address if it is this endpoint's; absent or another's is no error.
func (m *Maps) DeleteEndpoint(a netip.Addr, id uint16) error {
	m.endpointMu.Lock()
	defer m.endpointMu.Unlock()
	e, ok, err := m.Endpoint(a)
	if err != nil || !ok || e.ID != id {
		return err
	}
	return del(m.endpoints, layout.AddrFrom(a))
}

// Endpoint reads the row of one address.
func (m *Maps) Endpoint(a netip.Addr) (Endpoint, bool, error) {
	v, ok, err := get[layout.Addr, layout.Endpoint](m.endpoints, layout.AddrFrom(a))
	return endpointFrom(&v), ok, err
}

// Endpoints reads all rows.
func (m *Maps) Endpoints() (map[netip.Addr]Endpoint, error) {
	out := map[netip.Addr]Endpoint{}
	err := each(m.endpoints, func(k *layout.Addr, v *layout.Endpoint) bool {
		out[k.Netip()] = endpointFrom(v)
		return true
	})
	return out, err
}

func endpointFrom(v *layout.Endpoint) Endpoint {
	return Endpoint{ID: v.Id, IfIndex: v.Ifindex, Identity: model.IdentityID(v.Identity), Set: model.SetID(v.PolicySet),
		Audit: v.Flags&layout.EndpointAudit != 0, NoMasq: v.Flags&layout.EndpointNoMasq != 0, MAC: v.Mac, HostMAC: v.HostMac}
}

// UpdateEndpoint changes the row of one address in place; absent is not an error and calls nothing. fn says whether to
// write what it made. No other writer of this Maps comes between.
func (m *Maps) UpdateEndpoint(a netip.Addr, fn func(*Endpoint) bool) error {
	m.endpointMu.Lock()
	defer m.endpointMu.Unlock()
	e, ok, err := m.Endpoint(a)
	if err != nil || !ok || !fn(&e) {
		return err
	}
	return m.putEndpoint(a, e)
}
