package observe

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/ring"
)

// Log keeps the newest events of one kind, each with its time.
type Log[E any] struct {
	ring *ring.Ring[Entry[E]]
	now  func() time.Time
}

// Entry is an event and when it happened.
type Entry[E any] struct {
	Event E
	Time  time.Time
}

func newLog[E any](capacity int, now func() time.Time) (*Log[E], error) {
	r, err := ring.New[Entry[E]](capacity)
	if err != nil {
		return nil, fmt.Errorf("new event log: %w", err)
	}
	return &Log[E]{ring: r, now: now}, nil
}

// Add appends an event, which must not be changed afterwards.
func (l *Log[E]) Add(e E) { l.ring.Write(Entry[E]{e, l.now()}) }

// Ring is what readers walk.
func (l *Log[E]) Ring() *ring.Ring[Entry[E]] { return l.ring }

// AgentEvents is the log of what the agent did. Its methods never block and are safe for concurrent use.
type AgentEvents struct{ *Log[*flowpb.AgentEvent] }

// Started notes the start of the agent.
func (a *AgentEvents) Started(t time.Time) {
	a.Add(&flowpb.AgentEvent{Type: flowpb.AgentEventType_AGENT_STARTED,
		Notification: &flowpb.AgentEvent_AgentStart{AgentStart: &flowpb.TimeNotification{Time: timestamppb.New(t)}}})
}

// PolicyUpdated notes that policies came into force; labels are those of the policies, rules their number.
func (a *AgentEvents) PolicyUpdated(labels []string, revision uint64, rules int) {
	a.policy(flowpb.AgentEventType_POLICY_UPDATED, labels, revision, rules)
}

// PolicyDeleted notes that policies went.
func (a *AgentEvents) PolicyDeleted(labels []string, revision uint64, rules int) {
	a.policy(flowpb.AgentEventType_POLICY_DELETED, labels, revision, rules)
}

func (a *AgentEvents) policy(t flowpb.AgentEventType, labels []string, revision uint64, rules int) {
	a.Add(&flowpb.AgentEvent{Type: t, Notification: &flowpb.AgentEvent_PolicyUpdate{PolicyUpdate: &flowpb.PolicyUpdateNotification{
		Labels: labels, Revision: revision, RuleCount: int64(rules)}}})
}

// EndpointCreated notes a new workload.
func (a *AgentEvents) EndpointCreated(ep model.Endpoint) {
	a.endpoint(flowpb.AgentEventType_ENDPOINT_CREATED, ep)
}

// EndpointDeleted notes that a workload went.
func (a *AgentEvents) EndpointDeleted(ep model.Endpoint) {
	a.endpoint(flowpb.AgentEventType_ENDPOINT_DELETED, ep)
}

func (a *AgentEvents) endpoint(t flowpb.AgentEventType, ep model.Endpoint) {
	a.Add(&flowpb.AgentEvent{Type: t, Notification: &flowpb.AgentEvent_EndpointUpdate{EndpointUpdate: &flowpb.EndpointUpdateNotification{
		Id: uint64(ep.ID), Labels: ep.Labels.Strings(), PodName: ep.Name, Namespace: ep.Namespace}}})
}

// EndpointRegenerated notes that the policy of a workload was put in force, or why it could not be.
func (a *AgentEvents) EndpointRegenerated(ep model.Endpoint, err error) {
	n := &flowpb.EndpointRegenNotification{Id: uint64(ep.ID), Labels: ep.Labels.Strings()}
	t := flowpb.AgentEventType_ENDPOINT_REGENERATE_SUCCESS
	if err != nil {
		t, n.Error = flowpb.AgentEventType_ENDPOINT_REGENERATE_FAILURE, err.Error()
	}
	a.Add(&flowpb.AgentEvent{Type: t, Notification: &flowpb.AgentEvent_EndpointRegenerate{EndpointRegenerate: n}})
}

// IPCacheUpserted notes who lives at a prefix now; old is who did before, or nil.
func (a *AgentEvents) IPCacheUpserted(e model.IPEntry, old *model.IPEntry) {
	a.ipcache(flowpb.AgentEventType_IPCACHE_UPSERTED, e, old)
}

// IPCacheDeleted notes that nobody is known at a prefix any more.
func (a *AgentEvents) IPCacheDeleted(e model.IPEntry) {
	a.ipcache(flowpb.AgentEventType_IPCACHE_DELETED, e, nil)
}

func (a *AgentEvents) ipcache(t flowpb.AgentEventType, e model.IPEntry, old *model.IPEntry) {
	n := &flowpb.IPCacheNotification{Cidr: e.Prefix.String(), Identity: uint32(e.Identity), HostIp: text(e.Tunnel),
		Namespace: e.Namespace, PodName: e.Name}
	if old != nil {
		n.OldIdentity, n.OldHostIp = wrapperspb.UInt32(uint32(old.Identity)), text(old.Tunnel)
	}
	a.Add(&flowpb.AgentEvent{Type: t, Notification: &flowpb.AgentEvent_IpcacheUpdate{IpcacheUpdate: n}})
}
