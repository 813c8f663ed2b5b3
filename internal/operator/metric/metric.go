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
	m := &Metrics{
		IdentityGCEntries: prometheus.NewGaugeVec(gauge("identity_gc", "entries", "Identities of the last collection"), []string{"status"}),
		IdentityGCRuns:    prometheus.NewCounterVec(counter("identity_gc", "runs", "Collections of identities"), []string{"outcome"}),
		EndpointGC:        prometheus.NewCounterVec(counter("", "endpoint_gc_objects", "CiliumEndpoints collected"), []string{"outcome"}),
		PodRanges:         prometheus.NewGaugeVec(gauge("ipam", "nodes", "Nodes by whether they have their pod ranges"), []string{"status"}),
		PoolsConflicting:  prometheus.NewGauge(gauge("lbipam", "conflicting_pools", "Pools that are not used because of a conflict")),
		PoolAvailable:     prometheus.NewGaugeVec(gauge("lbipam", "ips_available", "Free addresses of a pool"), []string{"pool"}),
		PoolUsed:          prometheus.NewGaugeVec(gauge("lbipam", "ips_used", "Addresses of a pool in use"), []string{"pool"}),
		Services:          prometheus.NewGauge(gauge("lbipam", "services_matching", "Services that have their addresses from here")),
		ServicesLacking:   prometheus.NewGauge(gauge("lbipam", "services_unsatisfied", "Services that lack an address")),
	}
	metrics.Registry.MustRegister(m.IdentityGCEntries, m.IdentityGCRuns, m.EndpointGC, m.PodRanges, m.PoolsConflicting, m.PoolAvailable,
		m.PoolUsed, m.Services, m.ServicesLacking)
	return m
})
