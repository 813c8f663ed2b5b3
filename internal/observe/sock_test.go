package observe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
)

var web = netip.AddrPortFrom(vip, 80)

// sockets: the network namespace 5 is app2's.
type sockets struct{ world }

func (sockets) Owner(netns uint64, v6 bool) (netip.Addr, bool) { return app2, netns == 5 && !v6 }

// A translation at a socket is a flow between the workload and the service or its backend, under the service's name.
func TestSocketFlows(t *testing.T) {
	o, err := New(Config{Node: "node1", Cluster: "default", SourceFiles: map[uint8]string{16: "sock/sock.bpf.c"}}, Deps{Resolver: sockets{}, Now: func() time.Time { return when }})
	if err != nil {
		t.Fatal(err)
	}
	common := func(change func(*flowpb.Flow)) *flowpb.Flow {
		f := base()
		f.Emitter.Version, f.Ethernet, f.Interface, f.Type, f.Summary, f.SocketCookie, f.CgroupId = "", nil, nil, flowpb.FlowType_SOCK, "TCP", 77, 88
		f.EventType = &flowpb.CiliumEventType{Type: 7}
		change(f)
		return f
	}
	service := &flowpb.Service{Name: "web", Namespace: "shop"}
	l4 := func(src, dst uint32) *flowpb.Layer4 {
		return &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: src, DestinationPort: dst}}}
	}
	event := model.Event{Time: when, Type: model.EventSock, Flags: model.EventL4, Proto: protoTCP, Socket: 77, Cgroup: 88, Netns: 5, Front: web}
	for _, c := range []struct {
		name string
		ev   model.Event
		want *flowpb.Flow
	}{
		{"towards the service", with(event, func(e *model.Event) { e.Code, e.Dst, e.DstPort = model.SockPreFwd, web.Addr(), 80 }), common(func(f *flowpb.Flow) {
			f.EventType.SubType, f.SockXlatePoint, f.Verdict = 1, flowpb.SocketTranslationPoint_SOCK_XLATE_POINT_PRE_DIRECTION_FWD, flowpb.Verdict_TRACED
			f.IP.Destination, f.Destination, f.L4, f.DestinationService = "10.96.0.1", &flowpb.Endpoint{}, l4(0, 80), service
		})},
		{"which is a backend", with(event, func(e *model.Event) { e.Code, e.Dst, e.DstPort = model.SockPostFwd, app1, 8080 }), common(func(f *flowpb.Flow) {
			f.EventType.SubType, f.SockXlatePoint, f.Verdict = 2, flowpb.SocketTranslationPoint_SOCK_XLATE_POINT_POST_DIRECTION_FWD, flowpb.Verdict_TRANSLATED
			f.L4, f.DestinationService = l4(0, 8080), service
		})},
		{"from the service", with(event, func(e *model.Event) { e.Code, e.Src, e.SrcPort = model.SockPostRev, web.Addr(), 80 }), common(func(f *flowpb.Flow) {
			f.EventType.SubType, f.SockXlatePoint, f.Verdict = 4, flowpb.SocketTranslationPoint_SOCK_XLATE_POINT_POST_DIRECTION_REV, flowpb.Verdict_TRANSLATED
			f.IP.Source, f.IP.Destination, f.L4, f.SourceService = "10.96.0.1", "10.0.1.2", l4(80, 0), service
			f.Source, f.Destination = &flowpb.Endpoint{}, f.Source
		})},
		{"nobody's socket, no service", with(event, func(e *model.Event) {
			e.Code, e.Netns, e.Proto, e.Dst, e.DstPort = model.SockPreFwd, 6, protoUDP, web.Addr(), 80
		}), common(func(f *flowpb.Flow) {
			f.EventType.SubType, f.SockXlatePoint, f.Verdict = 1, flowpb.SocketTranslationPoint_SOCK_XLATE_POINT_PRE_DIRECTION_FWD, flowpb.Verdict_TRACED
			f.IP.Source, f.IP.Destination, f.Source, f.Destination, f.Summary = "", "10.96.0.1", &flowpb.Endpoint{}, &flowpb.Endpoint{}, "UDP"
			f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: 80}}}
		})},
		{"refused", with(event, func(e *model.Event) {
			e.Type, e.Code, e.Flags, e.Dst, e.DstPort, e.File, e.Line = model.EventDrop, 158, model.EventL4|model.EventEgress, web.Addr(), 80, 16, 5
		}), common(func(f *flowpb.Flow) {
			f.Type, f.EventType, f.Verdict = flowpb.FlowType_L3_L4, &flowpb.CiliumEventType{Type: 1, SubType: 158}, flowpb.Verdict_DROPPED
			f.DropReason, f.DropReasonDesc, f.TrafficDirection = 158, flowpb.DropReason_SERVICE_BACKEND_NOT_FOUND, flowpb.TrafficDirection_EGRESS
			f.IP.Destination, f.Destination, f.L4, f.DestinationService = "10.96.0.1", &flowpb.Endpoint{}, l4(0, 80), service
			f.File = &flowpb.FileInfo{Name: "sock/sock.bpf.c", Line: 5}
		})},
	} {
		got := o.dec.see(&c.ev).flow()
		if d := cmp.Diff(c.want, got, protocmp.Transform(), protocmp.IgnoreFields(&flowpb.Flow{}, "uuid")); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}
