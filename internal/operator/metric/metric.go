// Package metric holds the numbers that the operator tells Prometheus, under the names that people's dashboards know.
package metric

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Metrics are the operator's numbers.
type Metrics struct {
	IdentityGCEntries *prometheus.GaugeVec   // status: alive, deleted
	IdentityGCRuns    *prometheus.CounterVec // outcome: success, fail
	EndpointGC        *prometheus.CounterVec // outcome: success, fail
	PodRanges         *prometheus.GaugeVec   // status: assigned, unassigned (nodes)
	PoolsConflicting  prometheus.Gauge
	PoolAvailable     *prometheus.GaugeVec // pool
	PoolUsed          *prometheus.GaugeVec // pool
	SliceSize         prometheus.Histogram
	SliceChanges      *prometheus.HistogramVec // opcode: cepinserted, cepremoved
	SliceSync         *prometheus.CounterVec   // outcome: success, fail
	SliceDelay        *prometheus.HistogramVec // queue: standard
	Services          prometheus.Gauge
	ServicesLacking   prometheus.Gauge
}

// Get returns the process's metrics, which are served with controller-runtime's own: there is one registry of them.
var Get = sync.OnceValue(func() *Metrics {
	const namespace = "cilium_operator"
	gauge := func(sub, name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: namespace, Subsystem: sub, Name: name, Help: help}
	}
	counter := func(sub, name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Subsystem: sub, Name: name, Help: help}
	}
	histogram := func(name, help string, buckets ...float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}
	}
	m := &Metrics{
		IdentityGCEntries: prometheus.NewGaugeVec(gauge("identity_gc", "entries", "Identities of the last collection"), []string{"status"}),
		IdentityGCRuns:    prometheus.NewCounterVec(counter("identity_gc", "runs", "Collections of identities"), []string{"outcome"}),
		EndpointGC:        prometheus.NewCounterVec(counter("", "endpoint_gc_objects", "CiliumEndpoints collected"), []string{"outcome"}),
		PodRanges:         prometheus.NewGaugeVec(gauge("ipam", "nodes", "Nodes by whether they have their pod ranges"), []string{"status"}),
		PoolsConflicting:  prometheus.NewGauge(gauge("lbipam", "conflicting_pools", "Pools that are not used because of a conflict")),
		PoolAvailable:     prometheus.NewGaugeVec(gauge("lbipam", "ips_available", "Free addresses of a pool"), []string{"pool"}),
		PoolUsed:          prometheus.NewGaugeVec(gauge("lbipam", "ips_used", "Addresses of a pool in use"), []string{"pool"}),
		SliceSize:         prometheus.NewHistogram(histogram("number_of_ceps_per_ces", "Endpoints of a CiliumEndpointSlice that was written", 1, 10, 25, 50, 100, 200, 500, 1000)),
		SliceChanges: prometheus.NewHistogramVec(histogram("number_of_cep_changes_per_ces", "Endpoints that came into a CiliumEndpointSlice or left it, by write",
			1, 5, 10, 25, 50, 100, 250, 500, 1000), []string{"opcode"}),
		SliceSync: prometheus.NewCounterVec(counter("", "ces_sync_total", "CiliumEndpointSlices brought in order"), []string{"outcome"}),
		SliceDelay: prometheus.NewHistogramVec(histogram("ces_queueing_delay_seconds", "How long a CiliumEndpointSlice waited to be written",
			append(prometheus.DefBuckets, 60, 300, 900, 1800, 3600)...), []string{"queue"}),
		Services:        prometheus.NewGauge(gauge("lbipam", "services_matching", "Services that have their addresses from here")),
		ServicesLacking: prometheus.NewGauge(gauge("lbipam", "services_unsatisfied", "Services that lack an address")),
	}
	metrics.Registry.MustRegister(m.IdentityGCEntries, m.IdentityGCRuns, m.EndpointGC, m.PodRanges, m.PoolsConflicting, m.PoolAvailable,
		m.PoolUsed, m.SliceSize, m.SliceChanges, m.SliceSync, m.SliceDelay, m.Services, m.ServicesLacking)
	return m
})
