package observe

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// IP protocols that the flow API tells apart.
const (
	protoICMP   = 1
	protoIGMP   = 2
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoVRRP   = 112
	protoSCTP   = 132
)

// parcel holds a flow with its parts, so that they are one allocation.
type parcel struct {
	flow     flowpb.Flow
	time     timestamppb.Timestamp
	ethernet flowpb.Ethernet
	ip       flowpb.IP
	l4       flowpb.Layer4
	src, dst flowpb.Endpoint
	event    flowpb.CiliumEventType
	reply    wrapperspb.BoolValue
	device   flowpb.NetworkInterface
}

// write makes the flow.
func (s *sighting) write() *flowpb.Flow {
	p := &parcel{}
	f, e, d := &p.flow, &s.ev, s.dec
	p.time.Seconds, p.time.Nanos = e.Time.Unix(), int32(e.Time.Nanosecond())
	f.Time, f.Uuid, f.NodeName, f.NodeLabels = &p.time, uuidText(s.uuid), d.node, d.cfg.NodeLabels
	f.Emitter = d.emitter
	f.Type = flowpb.FlowType_L3_L4
	s.addresses(p)
	layer4(p, e)
	f.Source, f.SourceNames = s.src.write(&p.src), s.src.names
	f.Destination, f.DestinationNames = s.dst.write(&p.dst), s.dst.names
	f.SourceService, f.DestinationService = s.src.service.write(), s.dst.service.write()
	if e.IfIndex != 0 {
		p.device.Index, p.device.Name = e.IfIndex, s.device
		f.Interface = &p.device
	}
	if e.Flags&model.EventReplyKnown != 0 {
		p.reply.Value = e.Flags&model.EventReply != 0
		f.IsReply, f.Reply = &p.reply, p.reply.Value
	}
	f.EventType = &p.event
	p.event.Type = int32(e.Type)
	f.TrafficDirection = s.dir
	if e.Socket != 0 {
		s.socket(f)
	}
	s.fate(f)
	f.Summary = s.summary(f)
	if s.rule != nil {
		s.policy(f)
	}
	return f
}

// socket writes down which socket it is.
func (s *sighting) socket(f *flowpb.Flow) {
	e := &s.ev
	f.SocketCookie, f.CgroupId = e.Socket, e.Cgroup
	if e.Type == model.EventSock {
		f.Type = flowpb.FlowType_SOCK
		f.SockXlatePoint = flowpb.SocketTranslationPoint(e.Code)
	}
}

func (s *sighting) addresses(p *parcel) {
	f, e := &p.flow, &s.ev
	if e.SrcMAC != [6]byte{} || e.DstMAC != [6]byte{} {
		p.ethernet.Source, p.ethernet.Destination = net.HardwareAddr(e.SrcMAC[:]).String(), net.HardwareAddr(e.DstMAC[:]).String()
		f.Ethernet = &p.ethernet
	}
	if e.Src.IsValid() || e.Dst.IsValid() {
		p.ip.Source, p.ip.Destination = text(e.Src), text(e.Dst)
		p.ip.IpVersion = version(e.Src, e.Dst)
		p.ip.SourceXlated = text(e.Xlated)
		f.IP = &p.ip
	}
	if e.Flags&model.EventTunnel != 0 {
		outer := &flowpb.IP{IpVersion: version(e.Tunnel, e.Tunnel)}
		if e.Type == model.EventTrace && e.Code == pointFromOverlay || e.Type != model.EventTrace && e.Flags&model.EventIngress != 0 {
			outer.Source = text(e.Tunnel)
		} else {
			outer.Destination = text(e.Tunnel)
		}
		f.Tunnel = &flowpb.Tunnel{Protocol: flowpb.Tunnel_VXLAN, IP: outer, Vni: e.VNI,
			L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: uint32(s.dec.cfg.TunnelPort)}}}}
	}
}

const pointFromOverlay = 9

func text(a netip.Addr) string {
	if !a.IsValid() || a == netip.IPv6Unspecified() {
		return ""
	}
	return a.Unmap().String()
}

func version(a, b netip.Addr) flowpb.IPVersion {
	for _, x := range []netip.Addr{a, b} {
		switch {
		case x.Is4() || x.Is4In6():
			return flowpb.IPVersion_IPv4
		case x.IsValid():
			return flowpb.IPVersion_IPv6
		}
	}
	return flowpb.IPVersion_IP_NOT_USED
}

func layer4(p *parcel, e *model.Event) {
	l := &p.l4
	src, dst := uint32(e.SrcPort), uint32(e.DstPort)
	if e.Flags&model.EventL4 == 0 {
		return
	}
	switch e.Proto {
	case protoTCP:
		t := &struct {
			wrap  flowpb.Layer4_TCP
			tcp   flowpb.TCP
			flags flowpb.TCPFlags
		}{}
		setTCPFlags(&t.flags, e.TCPFlags)
		t.tcp.SourcePort, t.tcp.DestinationPort = src, dst
		if e.Flags&model.EventFragment == 0 && e.Socket == 0 {
			t.tcp.Flags = &t.flags
		}
		t.wrap.TCP = &t.tcp
		l.Protocol = &t.wrap
	case protoUDP:
		l.Protocol = &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: src, DestinationPort: dst}}
	case protoSCTP:
		l.Protocol = &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: src, DestinationPort: dst}}
	case protoICMP:
		l.Protocol = &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: src, Code: dst}}
	case protoICMPv6:
		l.Protocol = &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: src, Code: dst}}
	case protoVRRP:
		l.Protocol = &flowpb.Layer4_VRRP{VRRP: &flowpb.VRRP{}}
	case protoIGMP:
		l.Protocol = &flowpb.Layer4_IGMP{IGMP: &flowpb.IGMP{}}
	default:
		return
	}
	p.flow.L4 = l
}

// setTCPFlags reads the low byte of the header's flags (RFC 9293 section 3.1).
func setTCPFlags(f *flowpb.TCPFlags, b uint8) {
	f.FIN, f.SYN, f.RST, f.PSH = b&0x01 != 0, b&0x02 != 0, b&0x04 != 0, b&0x08 != 0
	f.ACK, f.URG, f.ECE, f.CWR = b&0x10 != 0, b&0x20 != 0, b&0x40 != 0, b&0x80 != 0
}

func (x *end) write(out *flowpb.Endpoint) *flowpb.Endpoint {
	out.ID, out.Identity, out.Labels = uint32(x.id), uint32(x.identity), x.labels
	out.Namespace, out.PodName, out.ClusterName = x.at.Name, x.pod, x.at.Cluster
	for _, w := range x.workloads {
		out.Workloads = append(out.Workloads, &flowpb.Workload{Name: w.Name, Kind: w.Kind})
	}
	return out
}

func (x Service) write() *flowpb.Service {
	if x.Name == "" {
		return nil
	}
	return &flowpb.Service{Name: x.Name, Namespace: x.Namespace}
}

// fate is what became of the packet.
func (s *sighting) fate(f *flowpb.Flow) {
	e := &s.ev
	f.Verdict, f.DropReason, f.DropReasonDesc = s.verdict, uint32(s.reason), s.reason
	switch e.Type {
	case model.EventDrop:
		f.EventType.SubType = int32(e.Code)
		if e.Line != 0 {
			f.File = &flowpb.FileInfo{Name: s.dec.file(e.File), Line: uint32(e.Line)}
		}
	case model.EventTrace:
		f.EventType.SubType = int32(e.Code)
		f.TraceObservationPoint = flowtext.ObservationPoint(e.Code)
		f.TraceReason = flowpb.TraceReason(e.Reason)
	case model.EventPolicyVerdict:
		f.PolicyMatchType = uint32(e.Reason)
	default:
		f.EventType.SubType = int32(e.Code)
	}
}

func (d *decoder) file(n uint8) string {
	if name, ok := d.cfg.SourceFiles[n]; ok {
		return name
	}
	return fmt.Sprintf("file %d", n)
}

func (s *sighting) summary(f *flowpb.Flow) string {
	if s.ev.Flags&model.EventFragment != 0 {
		return flowtext.Protocol(f) + " later fragment"
	}
	if s.ev.Socket != 0 {
		return flowtext.Protocol(f)
	}
	if f.GetL4().GetTCP() != nil {
		return s.dec.tcp[s.ev.TCPFlags]
	}
	return flowtext.Summary(f)
}

// stamp is a time in the API's form.
func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
