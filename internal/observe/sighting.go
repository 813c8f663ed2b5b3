package observe

import (
	"encoding/hex"
	"sync/atomic"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
)

// sighting is an event with the names that its numbers had when it came. The flow is written out when somebody asks for
// it: most are overwritten unseen, and writing one costs several times what keeping a sighting does.
type sighting struct {
	dec      *decoder // for what does not change: who observes
	ev       model.Event
	src, dst end
	device   string
	rule     *ruleEntry // nil if none was asked
	known    bool       // rule is in force
	verdict  flowpb.Verdict
	reason   flowpb.DropReason // 0 = none
	dir      flowpb.TrafficDirection
	uuid     [16]byte
	written  atomic.Pointer[flowpb.Flow]
}

// end is one end of a flow.
type end struct {
	id        uint16
	identity  model.IdentityID
	at        Namespace
	pod       string
	labels    []string
	workloads []Workload
	names     []string
	service   Service
}

// flow writes the sighting out, once: all who ask get the same flow, which nobody may change.
func (s *sighting) flow() *flowpb.Flow {
	if f := s.written.Load(); f != nil {
		return f
	}
	if f := s.write(); s.written.CompareAndSwap(nil, f) {
		return f
	}
	return s.written.Load()
}

// judged is what became of the packet, and why if that was bad.
func (s *sighting) judged() (flowpb.Verdict, flowpb.DropReason) {
	e := &s.ev
	switch e.Type {
	case model.EventDrop:
		return flowpb.Verdict_DROPPED, flowpb.DropReason(e.Code)
	case model.EventTrace:
		return flowpb.Verdict_FORWARDED, 0
	case model.EventSock:
		switch e.Code {
		case model.SockPreFwd, model.SockPreRev:
			return flowpb.Verdict_TRACED, 0
		case model.SockPostFwd, model.SockPostRev:
			return flowpb.Verdict_TRANSLATED, 0
		}
		return flowpb.Verdict_VERDICT_UNKNOWN, 0
	case model.EventPolicyVerdict:
	default:
		return flowpb.Verdict_ERROR, 0
	}
	switch e.Code &^ model.VerdictAudit {
	case model.VerdictAllow:
		return flowpb.Verdict_FORWARDED, 0
	case model.VerdictRedirect:
		return flowpb.Verdict_REDIRECTED, 0
	case model.VerdictAuth:
		return flowpb.Verdict_DROPPED, flowpb.DropReason_AUTH_REQUIRED
	}
	reason := flowpb.DropReason_POLICY_DENY
	if !s.known || s.rule.ref.Implicit {
		reason = flowpb.DropReason_POLICY_DENIED
	}
	if e.Code&model.VerdictAudit != 0 || e.Flags&model.EventAudit != 0 {
		return flowpb.Verdict_AUDIT, reason
	}
	return flowpb.Verdict_DROPPED, reason
}

// direction is that of the connection, seen from the local workload: a reply to what came in leaves by egress of the
// packet, and is part of ingress.
func direction(e *model.Event) flowpb.TrafficDirection {
	in, out := e.Flags&model.EventIngress != 0, e.Flags&model.EventEgress != 0
	if e.Type == model.EventTrace && e.Flags&model.EventReplyKnown != 0 && e.Flags&model.EventReply != 0 {
		in, out = out, in
	}
	switch {
	case in:
		return flowpb.TrafficDirection_INGRESS
	case out:
		return flowpb.TrafficDirection_EGRESS
	}
	return flowpb.TrafficDirection_TRAFFIC_DIRECTION_UNKNOWN
}

// uuidText is a random UUID, version 4 (RFC 9562 section 5.4), made of 16 random bytes.
func uuidText(u [16]byte) string {
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[0:8], u[0:4])
	hex.Encode(s[9:13], u[4:6])
	hex.Encode(s[14:18], u[6:8])
	hex.Encode(s[19:23], u[8:10])
	hex.Encode(s[24:36], u[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
