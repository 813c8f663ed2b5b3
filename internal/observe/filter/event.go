package filter

import (
	"errors"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// event holds the tests of what happened.
func event(b *builder) {
	f := b.f
	oneOf(b, "verdict", f.GetVerdict(), func(f *flowpb.Flow) flowpb.Verdict { return f.GetVerdict() })
	oneOf(b, "drop_reason_desc", f.GetDropReasonDesc(), func(f *flowpb.Flow) flowpb.DropReason { return f.GetDropReasonDesc() })
	oneOf(b, "traffic_direction", f.GetTrafficDirection(), func(f *flowpb.Flow) flowpb.TrafficDirection { return f.GetTrafficDirection() })
	anyOf(b, "uuid", f.GetUuid(), nonEmpty, func(f *flowpb.Flow) string { return f.GetUuid() })
	oneOf(b, "ip_trace_id", f.GetIpTraceId(), func(f *flowpb.Flow) uint64 { return f.GetIpTraceId().GetTraceId() })
	anyOf(b, "event_type", f.GetEventType(), eventType, func(f *flowpb.Flow) *flowpb.CiliumEventType { return f.GetEventType() })
	anyOf(b, "reply", f.GetReply(), reply, func(f *flowpb.Flow) *flowpb.Flow { return f })
	anyOf(b, "interface", f.GetInterface(), device, func(f *flowpb.Flow) *flowpb.NetworkInterface { return f.GetInterface() })
}

func eventType(want *flowpb.EventTypeFilter) (func(*flowpb.CiliumEventType) bool, error) {
	if want == nil {
		return nil, errors.New("want an event type")
	}
	return func(have *flowpb.CiliumEventType) bool {
		return have != nil && have.GetType() == want.GetType() && (!want.GetMatchSubType() || have.GetSubType() == want.GetSubType())
	}, nil
}

// reply matches only where it is known whether a flow is one.
func reply(want bool) (func(*flowpb.Flow) bool, error) {
	return func(f *flowpb.Flow) bool { return f.GetIsReply() != nil && f.GetIsReply().GetValue() == want }, nil
}

func device(want *flowpb.NetworkInterface) (func(*flowpb.NetworkInterface) bool, error) {
	if want.GetIndex() == 0 && want.GetName() == "" {
		return nil, errors.New("want a device's name or index")
	}
	return func(have *flowpb.NetworkInterface) bool {
		return have != nil && (want.GetIndex() == 0 || want.GetIndex() == have.GetIndex()) &&
			(want.GetName() == "" || want.GetName() == have.GetName())
	}, nil
}
