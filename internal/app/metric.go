package app

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/monitor"
)

// collector shows the datapath's counters and the agent's own state as metrics; it reads them when asked.
type collector struct{ *Agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("cilium_"+name, help, labels, nil)
}

var (
	forwardCount = desc("forward_count_total", "Packets forwarded.", "direction")
	forwardBytes = desc("forward_bytes_total", "Bytes forwarded.", "direction")
	dropCount    = desc("drop_count_total", "Packets dropped.", "reason", "direction")
	dropBytes    = desc("drop_bytes_total", "Bytes dropped.", "reason", "direction")
	deniedCount  = desc("prefilter_drop_count_total", "Packets dropped because the prefilter denies their source.")
	deniedBytes  = desc("prefilter_drop_bytes_total", "Bytes of these packets.")
	deniedNow    = desc("prefilter_cidrs", "CIDRs that the prefilter denies.")
	fastSent     = desc("lb_acceleration_forward_count_total", "Packets of services that were sent on in XDP.")
	fastBytes    = desc("lb_acceleration_forward_bytes_total", "Bytes of these packets.")
	fastLeft     = desc("lb_acceleration_pass_count_total", "Packets of services that XDP left to tc.")
	eventsStored = desc("bpf_events_total", "Events of the datapath that were read.")
	eventsLost   = desc("bpf_events_lost_total", "Events of the datapath that found no room in their ring.")
	mapErrors    = desc("bpf_map_errors_total", "Writes to a kernel map that failed; what did not fit is dropped.", "map")
	mapEntries   = desc("bpf_map_entries", "Rows in use.", "map")
	mapCapacity  = desc("bpf_map_capacity", "Rows there is room for.", "map")
	endpointsNow = desc("endpoint", "Workloads attached to this node.")
	revisionNow  = desc("policy_max_revision", "Newest policy revision in force.")
	policyFailed = desc("policy_failing", "1 while the newest policy could not be put in force.")
	nodesNow     = desc("nodes_all_num", "Nodes of the cluster.")
	refusedAdds  = desc("endpoint_refused_total", "Workloads that were not attached, because something was missing or full.")
	addressesOut = desc("ipcache_unwritten", "Addresses that could not be written to the kernel; their packets are dropped.")
	partState    = desc("component_state", "How a part is, as `hypha status` shows it: 0 well, 1 warning, 2 failure.", "component")
)

// newDelay is upstream's metric of how long policies take, without its label source.
func newDelay() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cilium_policy_implementation_delay",
		Help: "Seconds from when a change of policies reached the agent until it was in force.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)})
}

var partStates = map[agentv1.Component_State]float64{stateOK: 0, stateWarning: 1, stateFailure: 2}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{forwardCount, forwardBytes, dropCount, dropBytes, deniedCount, deniedBytes, deniedNow, fastSent, fastBytes, fastLeft, eventsStored, eventsLost, mapErrors, mapEntries,
		mapCapacity, endpointsNow, revisionNow, policyFailed, nodesNow, refusedAdds, addressesOut, partState} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if ms, err := c.maps.Metrics(); err == nil {
		packets(ms, counter)
	}
	if packets, bytes, err := c.maps.PrefilterDrops(); err == nil {
		counter(deniedCount, packets)
		counter(deniedBytes, bytes)
	}
	if f, err := c.maps.Accelerated(); err == nil && c.fast() != loader.FastOff {
		counter(fastSent, f.Sent)
		counter(fastBytes, f.SentBytes)
		counter(fastLeft, f.Left)
	}
	list, _ := c.denials.current()
	gauge(deniedNow, float64(len(list.Deny)))
	counter(eventsStored, c.eventCounter.stored.Load())
	counter(eventsLost, c.eventCounter.lost.Load())
	if ms, err := c.maps.List(); err == nil {
		for _, m := range ms {
			counter(mapErrors, m.Errors, m.Name)
			gauge(mapEntries, float64(m.Entries), m.Name)
			gauge(mapCapacity, float64(m.MaxEntries), m.Name)
		}
	}
	gauge(endpointsNow, float64(c.endpoints.Table().Snapshot().Len()))
	gauge(revisionNow, float64(c.policies.Revision()))
	failing := 0.0
	if c.policies.Err() != nil {
		failing = 1
	}
	gauge(policyFailed, failing)
	gauge(nodesNow, float64(c.store.nodes.Table().Snapshot().Len()))
	counter(refusedAdds, c.refused.Load())
	_, _, out := c.cache.Status()
	gauge(addressesOut, float64(out))
	for _, part := range c.status(context.Background()).Components {
		if v, ok := partStates[part.GetState()]; ok {
			gauge(partState, v, part.GetName())
		}
	}
}

// packets are the datapath's counters by verdict: forwarded, or why not.
func packets(ms []maps.Metric, counter func(d *prometheus.Desc, v uint64, labels ...string)) {
	for _, m := range ms {
		dir := [...]string{"UNKNOWN", "INGRESS", "EGRESS", "UNKNOWN"}[m.Direction&3]
		if m.Reason == 0 {
			counter(forwardCount, m.Packets, dir)
			counter(forwardBytes, m.Bytes, dir)
		} else {
			counter(dropCount, m.Packets, monitor.DropReason(m.Reason), dir)
			counter(dropBytes, m.Bytes, monitor.DropReason(m.Reason), dir)
		}
	}
}
