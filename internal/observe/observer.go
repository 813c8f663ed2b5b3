// Package observe turns the datapath's events into flows and keeps the newest of them. An Observer is fed by the ring
// reader (Handle, Lost) and by those who change things (Agent); package server lets clients read it. Nothing here waits
// for a client, and every event is accounted for: seen = stored + lost.
package observe

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/ring"
)

// Defaults of Config.
const (
	DefaultCapacity   = 4095
	defaultAgentCap   = 1023
	defaultTunnelPort = 8472
)

// Config says who observes, and how much is kept.
type Config struct {
	Node        string
	Cluster     string
	NodeLabels  []string         // "key=value"
	Version     string           // of the agent
	Capacity    int              // flows kept, a power of two less one; 0 = 4095
	TunnelPort  uint16           // 0 = 8472
	SourceFiles map[uint8]string // names of the datapath's source files by the number in an event
}

// Deps is what an Observer needs. Metrics and Now may be nil.
type Deps struct {
	Resolver Resolver
	Metrics  prometheus.Registerer
	Now      func() time.Time
}

// Record is one entry of the ring: a flow, or the fact that events were lost on their way here.
type Record struct {
	Lost *flowpb.LostEvent
	Time time.Time

	seen *sighting // nil if Lost is set
}

// Flow is the record as a flow, nil if it tells of a loss. All callers get the same one; nobody may change it.
func (r Record) Flow() *flowpb.Flow {
	if r.seen == nil {
		return nil
	}
	return r.seen.flow()
}

// Stats counts events since the start. Seen is Stored + Lost, exactly.
type Stats struct {
	Seen, Stored, Lost uint64
	Current, Max       int     // flows in the ring, and its capacity
	Rate               float64 // stored per second, over the last minute
	Started            time.Time
}

// Observer is the flows of this node. All methods are safe for concurrent use.
type Observer struct {
	// Agent holds what the agent did: policy, endpoint and ipcache changes.
	Agent *AgentEvents
	// Debug holds what the datapath said for debugging.
	Debug *Log[*flowpb.DebugEvent]

	cfg     Config
	now     func() time.Time
	started time.Time
	flows   *ring.Ring[Record]

	mu         sync.Mutex
	dec        *decoder
	metrics    *metrics
	namespaces namespaces
	rate       rate
	stored     uint64
	lost       uint64
}

// New makes an Observer. It fails for a capacity that is not a power of two less one, or if the metrics are registered
// already.
func New(cfg Config, deps Deps) (*Observer, error) {
	cfg.Capacity = cmp.Or(cfg.Capacity, DefaultCapacity)
	cfg.TunnelPort = cmp.Or(cfg.TunnelPort, defaultTunnelPort)
	if deps.Resolver == nil {
		return nil, fmt.Errorf("new observer: no resolver")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	flows, err := ring.New[Record](cfg.Capacity)
	if err != nil {
		return nil, fmt.Errorf("new observer: flow %w", err)
	}
	agent, err := newLog[*flowpb.AgentEvent](defaultAgentCap, deps.Now)
	if err != nil {
		return nil, err
	}
	debug, err := newLog[*flowpb.DebugEvent](defaultAgentCap, deps.Now)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	return &Observer{Agent: &AgentEvents{agent}, Debug: debug, cfg: cfg, now: deps.Now, started: deps.Now(), flows: flows,
		dec: newDecoder(cfg, deps.Resolver), metrics: m, namespaces: namespaces{}}, nil
}

// Handle takes one event of the datapath. It does not block on any client and keeps no reference to e.
func (o *Observer) Handle(e model.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = o.now()
	}
	s := o.dec.see(&e)
	o.stored++
	o.rate.add(o.now())
	o.namespaces.see(e.Time, s.src.at)
	o.namespaces.see(e.Time, s.dst.at)
	o.metrics.see(s)
	o.flows.Write(Record{seen: s, Time: e.Time})
}

// Lost takes note that the kernel could not store n events of a CPU. Readers are told, too.
func (o *Observer) Lost(cpu int, n uint64) {
	if n == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	o.lost += n
	o.metrics.lose(flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, n)
	o.flows.Write(Record{Time: now, Lost: &flowpb.LostEvent{Source: flowpb.LostEventSource_PERF_EVENT_RING_BUFFER,
		NumEventsLost: n, Cpu: wrapperspb.Int32(int32(cpu)), First: stamp(now), Last: stamp(now)}})
}

// NoteReaderLoss counts events that a reader came too late for.
func (o *Observer) NoteReaderLoss(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.metrics.lose(flowpb.LostEventSource_HUBBLE_RING_BUFFER, n)
}

// Flows is the ring that readers walk.
func (o *Observer) Flows() *ring.Ring[Record] { return o.flows }

// Config is what the Observer was made with, defaults filled in.
func (o *Observer) Config() Config { return o.cfg }

// NodeName is "cluster/node", or just the node in the default cluster: what flows carry.
func (o *Observer) NodeName() string { return o.dec.node }

// Now is the Observer's clock.
func (o *Observer) Now() time.Time { return o.now() }

// Stats counts.
func (o *Observer) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Stats{Seen: o.stored + o.lost, Stored: o.stored, Lost: o.lost, Current: o.flows.Len(), Max: o.flows.Cap(),
		Rate: o.rate.perSecond(o.now(), o.started), Started: o.started}
}

// Namespaces are those of workloads seen during the last hour, sorted.
func (o *Observer) Namespaces() []Namespace {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.namespaces.list(o.now())
}
