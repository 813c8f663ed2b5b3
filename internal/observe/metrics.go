package observe

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// metrics counts flows under the names that dashboards of the field know. Counters of label values seen before are
// kept at hand: looking them up by text for every flow would cost more than the flow.
type metrics struct {
	flows *prometheus.CounterVec
	drops *prometheus.CounterVec
	lost  *prometheus.CounterVec

	byFlow map[flowKey]prometheus.Counter
	byDrop map[dropKey]prometheus.Counter
}

type flowKey struct {
	typ, sub int32
	verdict  flowpb.Verdict
	proto    uint8
	l4       bool // proto is known
}

type dropKey struct {
	reason flowpb.DropReason
	dir    flowpb.TrafficDirection
	proto  uint8
	l4     bool
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		flows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hubble_flows_processed_total",
			Help: "Flows observed, by protocol, kind of event and verdict."}, []string{"protocol", "type", "subtype", "verdict"}),
		drops: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hubble_drop_total",
			Help: "Packets dropped, by reason, protocol and direction of the connection."}, []string{"reason", "protocol", "direction"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hubble_lost_events_total",
			Help: "Events that were not observed, by the place where they were lost."}, []string{"source"}),
		byFlow: map[flowKey]prometheus.Counter{}, byDrop: map[dropKey]prometheus.Counter{},
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.flows, m.drops, m.lost} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register flow metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) see(s *sighting) {
	e := &s.ev
	k := flowKey{typ: int32(e.Type), verdict: s.verdict, proto: e.Proto, l4: e.Flags&model.EventL4 != 0}
	if k.typ == flowtext.EventTrace {
		k.sub = int32(e.Code)
	}
	c, ok := m.byFlow[k]
	if !ok {
		c = m.flows.WithLabelValues(flowtext.Protocol(s.flow()), typeLabel(k.typ), subLabel(k), k.verdict.String())
		m.byFlow[k] = c
	}
	c.Inc()
	if k.typ != flowtext.EventDrop {
		return
	}
	d := dropKey{s.reason, s.dir, k.proto, k.l4}
	if c, ok = m.byDrop[d]; !ok {
		c = m.drops.WithLabelValues(d.reason.String(), flowtext.Protocol(s.flow()), d.dir.String())
		m.byDrop[d] = c
	}
	c.Inc()
}

func (m *metrics) lose(source flowpb.LostEventSource, n uint64) {
	m.lost.WithLabelValues(source.String()).Add(float64(n))
}

func typeLabel(t int32) string {
	switch t {
	case flowtext.EventDrop:
		return "Drop"
	case flowtext.EventTrace:
		return "Trace"
	case flowtext.EventPolicyVerdict:
		return "PolicyVerdict"
	case flowtext.EventSock:
		return "TraceSock"
	}
	return "Unknown"
}

func subLabel(k flowKey) string {
	if k.typ == flowtext.EventTrace {
		return flowtext.TracePoint(k.sub)
	}
	return ""
}
