package observe

import (
	"fmt"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
	observerpb "github.com/hypha-net/hypha/api/observer"
	"github.com/hypha-net/hypha/internal/escape"
)

// agentEvent writes one answer of GetAgentEvents.
func (p *printer) agentEvent(r *observerpb.GetAgentEventsResponse) error {
	if p.output == "json" || p.output == "jsonpb" {
		return p.json(r)
	}
	e := r.GetAgentEvent()
	return p.event(p.time(r.GetTime()), r.GetNodeName(), e.GetType().String(), agentDetails(e))
}

// event writes something that is not a flow.
func (p *printer) event(when, node, kind, details string) error {
	node, kind, details = escape.Text(node), escape.Text(kind), escape.Text(details)
	switch p.output {
	case "dict":
		fs := []field{{"TIMESTAMP", when}}
		if p.node {
			fs = append(fs, field{"NODE", node})
		}
		return p.record(append(fs, field{"TYPE", kind}, field{"DETAILS", details}))
	case "table":
		if p.node {
			return p.table([]string{"TIMESTAMP", "NODE", "TYPE", "DETAILS"}, []string{when, node, kind, details})
		}
		return p.table([]string{"TIMESTAMP", "TYPE", "DETAILS"}, []string{when, kind, details})
	}
	if p.node {
		when += " [" + node + "]"
	}
	_, err := fmt.Fprintf(p.out, "%s: %s (%s)\n", when, p.styled(cyan, kind), details)
	return err
}

func agentDetails(e *flowpb.AgentEvent) string {
	switch n := e.GetNotification().(type) {
	case *flowpb.AgentEvent_AgentStart:
		return "start time: " + n.AgentStart.GetTime().AsTime().Local().String()
	case *flowpb.AgentEvent_PolicyUpdate:
		u := n.PolicyUpdate
		return fmt.Sprintf("labels: [%s], revision: %d, count: %d", strings.Join(u.GetLabels(), ", "), u.GetRevision(), u.GetRuleCount())
	case *flowpb.AgentEvent_EndpointRegenerate:
		u := n.EndpointRegenerate
		s := fmt.Sprintf("id: %d, labels: [%s]", u.GetId(), strings.Join(u.GetLabels(), ", "))
		if u.GetError() != "" {
			s += ", error: " + u.GetError()
		}
		return s
	case *flowpb.AgentEvent_EndpointUpdate:
		u := n.EndpointUpdate
		s := fmt.Sprintf("id: %d", u.GetId())
		if u.GetNamespace() != "" {
			s += ", namespace: " + u.GetNamespace()
		}
		if u.GetPodName() != "" {
			s += ", pod name: " + u.GetPodName()
		}
		return s
	case *flowpb.AgentEvent_IpcacheUpdate:
		u := n.IpcacheUpdate
		var s strings.Builder
		fmt.Fprintf(&s, "cidr: %s, identity: %d", u.GetCidr(), u.GetIdentity())
		if u.GetOldIdentity() != nil {
			fmt.Fprintf(&s, ", old identity: %d", u.GetOldIdentity().GetValue())
		}
		for _, f := range []struct{ name, v string }{{"host ip", u.GetHostIp()}, {"old host ip", u.GetOldHostIp()},
			{"namespace", u.GetNamespace()}, {"pod name", u.GetPodName()}} {
			if f.v != "" {
				s.WriteString(", " + f.name + ": " + f.v)
			}
		}
		return s.String()
	case *flowpb.AgentEvent_ServiceUpsert:
		return fmt.Sprintf("id: %d, name: %s, namespace: %s", n.ServiceUpsert.GetId(), n.ServiceUpsert.GetName(), n.ServiceUpsert.GetNamespace())
	case *flowpb.AgentEvent_ServiceDelete:
		return fmt.Sprintf("id: %d", n.ServiceDelete.GetId())
	case *flowpb.AgentEvent_Unknown:
		return fmt.Sprintf("type: %s, notification: %s", n.Unknown.GetType(), n.Unknown.GetNotification())
	}
	return ""
}

// debugEvent writes one answer of GetDebugEvents.
func (p *printer) debugEvent(r *observerpb.GetDebugEventsResponse) error {
	if p.output == "json" || p.output == "jsonpb" {
		return p.json(r)
	}
	e := r.GetDebugEvent()
	details := e.GetMessage()
	if e.GetSource() != nil {
		details = fmt.Sprintf("endpoint %d: %s", e.GetSource().GetID(), details)
	}
	if e.GetCpu() != nil {
		details += fmt.Sprintf(" CPU(%d)", e.GetCpu().GetValue())
	}
	return p.event(p.time(r.GetTime()), r.GetNodeName(), e.GetType().String(), details)
}
