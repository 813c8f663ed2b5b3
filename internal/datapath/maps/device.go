package maps

import (
	"net/netip"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Device is a row of devices_v1: a device of the node to the outside.
type Device struct {
	Masq4 netip.Addr // address that workloads leave under; invalid: they do not
	Masq6 netip.Addr
	MTU   uint32
	L3    bool // no link-layer header
}

// PutDevice writes the row of a device.
func (m *Maps) PutDevice(ifindex uint32, d Device) error {
	v := layout.Device{Masq4: layout.AddrFrom(d.Masq4), Masq6: layout.AddrFrom(d.Masq6), Mtu: d.MTU}
	if d.L3 {
		v.Flags |= layout.DeviceL3
	}
	return put(m.devices, ifindex, v)
}

// DeleteDevice removes the row of a device; absent is no error.
func (m *Maps) DeleteDevice(ifindex uint32) error { return del(m.devices, ifindex) }

// Devices reads all rows.
func (m *Maps) Devices() (map[uint32]Device, error) {
	out := map[uint32]Device{}
	err := each(m.devices, func(k *uint32, v *layout.Device) bool {
		out[*k] = deviceFrom(v)
		return true
	})
	return out, err
}

func deviceFrom(v *layout.Device) Device {
	return Device{Masq4: v.Masq4.Netip(), Masq6: v.Masq6.Netip(), MTU: v.Mtu, L3: v.Flags&layout.DeviceL3 != 0}
}
