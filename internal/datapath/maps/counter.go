package maps

import (
	"fmt"

	layout "github.com/hypha-net/hypha/bpf/maps"
)

// Metric is what the datapath counted for one reason and direction, summed over the CPUs.
type Metric struct {
	Reason    uint8 // 0 forwarded, else the drop reason
	Direction uint8 // 0 unknown, 1 ingress, 2 egress
	Packets   uint64
	Bytes     uint64
}

const metricDirBits = 2 // metrics_v1 is keyed by reason << 2 | direction

// Metrics reads the counters that are not zero, by reason and direction.
func (m *Maps) Metrics() ([]Metric, error) {
	var out []Metric
	var cpus []layout.Metric
	for k := range m.metrics.MaxEntries() {
		if err := m.metrics.Lookup(&k, &cpus); err != nil {
			return nil, fmt.Errorf("read %s: %w", m.metrics.name, err)
		}
		x := Metric{Reason: uint8(k >> metricDirBits), Direction: uint8(k & (1<<metricDirBits - 1))}
		for _, c := range cpus {
			x.Packets += c.Count
			x.Bytes += c.Bytes
		}
		if x.Packets != 0 {
			out = append(out, x)
		}
	}
	return out, nil
}

// CPUEvents is what became of the events that one CPU produced.
type CPUEvents struct{ Stored, Lost uint64 }

// EventCounts reads the counters by CPU.
func (m *Maps) EventCounts() ([]CPUEvents, error) {
	var cpus []layout.EventCount
	if err := m.eventCount.Lookup(uint32(0), &cpus); err != nil {
		return nil, fmt.Errorf("read %s: %w", m.eventCount.name, err)
	}
	out := make([]CPUEvents, len(cpus))
	for i, c := range cpus {
		out[i] = CPUEvents{Stored: c.Stored, Lost: c.Lost}
	}
	return out, nil
}
