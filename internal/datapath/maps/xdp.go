package maps

import (
	"fmt"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Accelerated is what became of services' packets in XDP, ever since the map was made.
type Accelerated struct {
	Sent, SentBytes uint64 // translated and sent on
	Left, LeftBytes uint64 // left to tc
}

// Accelerated reads the counters.
func (m *Maps) Accelerated() (Accelerated, error) {
	sent, err := m.xdpMetric(layout.FastSent)
	if err != nil {
		return Accelerated{}, err
	}
	left, err := m.xdpMetric(layout.FastLeft)
	return Accelerated{Sent: sent.Count, SentBytes: sent.Bytes, Left: left.Count, LeftBytes: left.Bytes}, err
}

// xdpMetric is a row, summed over the CPUs.
func (m *Maps) xdpMetric(key uint32) (sum layout.Metric, err error) {
	var cpus []layout.Metric
	if err := m.xdpCount.Lookup(key, &cpus); err != nil {
		return sum, fmt.Errorf("read %s: %w", m.xdpCount.name, err)
	}
	for _, c := range cpus {
		sum.Count, sum.Bytes = sum.Count+c.Count, sum.Bytes+c.Bytes
	}
	return sum, nil
}

// XDPDevices are the devices, by number, that XDP may send by.
func (m *Maps) XDPDevices() (out []uint32, err error) {
	err = each(m.xdpDevices, func(k, _ *uint32) bool {
		out = append(out, *k)
		return true
	})
	return out, err
}

// PutXDPDevice lets XDP send by a device of the calling thread's network namespace.
func (m *Maps) PutXDPDevice(ifindex uint32) error { return put(m.xdpDevices, ifindex, ifindex) }

// DeleteXDPDevice ends that; absent is no error.
func (m *Maps) DeleteXDPDevice(ifindex uint32) error { return del(m.xdpDevices, ifindex) }
