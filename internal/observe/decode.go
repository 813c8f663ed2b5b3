package observe

import (
	crand "crypto/rand"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
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

// decoder makes flows of events. It is not safe for concurrent use.
type decoder struct {
	cfg      Config
	resolver Resolver
	node     string
	emitter  *flowpb.Emitter
	random   *rand.ChaCha8
	labels   labelCache
	rules    ruleCache
	tcp      [256]string // summaries by TCP flags
}

func newDecoder(cfg Config, r Resolver) *decoder {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // documented never to fail
	d := &decoder{cfg: cfg, resolver: r, node: nodeName(cfg.Cluster, cfg.Node), random: rand.NewChaCha8(seed),
		emitter: &flowpb.Emitter{Name: "hypha", Version: cfg.Version}, labels: labelCache{}, rules: ruleCache{}}
	for i := range d.tcp {
		f := &flowpb.TCPFlags{}
		setTCPFlags(f, uint8(i))
		d.tcp[i] = "TCP Flags: " + flowtext.TCPFlags(f)
	}
	return d
}

// nodeName is "cluster/node", or just the node in the default cluster.
func nodeName(cluster, node string) string {
	if cluster == "" || cluster == "default" {
		return node
	}
	return cluster + "/" + node
}

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

// decode makes a flow of an event. It accepts any event: what it cannot name stays a number.
func (d *decoder) decode(e *model.Event) *flowpb.Flow {
	p := &parcel{}
	f := &p.flow
	p.time.Seconds, p.time.Nanos = e.Time.Unix(), int32(e.Time.Nanosecond())
	f.Time, f.Uuid, f.NodeName, f.NodeLabels = &p.time, d.uuid(), d.node, d.cfg.NodeLabels
	f.Emitter = d.emitter
	f.Type = flowpb.FlowType_L3_L4
	d.addresses(p, e)
	layer4(p, e)
	f.Source, f.SourceNames = d.endpoint(&p.src, e.Src, e.SrcEndpoint, e.SrcIdentity)
	f.Destination, f.DestinationNames = d.endpoint(&p.dst, e.Dst, e.DstEndpoint, e.DstIdentity)
	if e.IfIndex != 0 {
		p.device.Index, p.device.Name = e.IfIndex, d.resolver.Interface(e.IfIndex)
		f.Interface = &p.device
	}
	if e.Flags&model.EventReplyKnown != 0 {
		p.reply.Value = e.Flags&model.EventReply != 0
		f.IsReply, f.Reply = &p.reply, p.reply.Value
	}
	f.EventType = &p.event
	p.event.Type = int32(e.Type)
	f.TrafficDirection = direction(e)
	d.verdict(f, e)
	f.Summary = d.summary(f, e)
	if e.Rule != model.RuleNone {
		d.policy(f, e)
	}
	return f
}

func (d *decoder) addresses(p *parcel, e *model.Event) {
	f := &p.flow
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
			L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{DestinationPort: uint32(d.cfg.TunnelPort)}}}}
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
		if e.Flags&model.EventFragment == 0 {
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

// endpoint names one end. The identity is the one that the datapath judged by; a name may be younger.
func (d *decoder) endpoint(out *flowpb.Endpoint, addr netip.Addr, id uint16, identity model.IdentityID) (*flowpb.Endpoint, []string) {
	out.ID, out.Identity = uint32(id), uint32(identity)
	var peer Peer
	if addr.IsValid() {
		peer, _ = d.resolver.Endpoint(addr, id)
	}
	if id == 0 {
		out.ID = uint32(peer.ID)
	}
	if identity == model.IdentityUnknown {
		identity = peer.Identity
		out.Identity = uint32(identity)
	}
	labels, ok := d.resolver.Identity(identity)
	if !ok {
		labels = peer.Labels
	}
	out.Labels = d.labels.strings(identity, labels)
	out.Namespace, out.PodName, out.ClusterName = peer.Namespace, peer.Pod, peer.Cluster
	if out.Namespace == "" {
		out.Namespace, _ = labels.Get(model.SourceK8s, model.KeyNamespace)
	}
	if out.ClusterName == "" && out.PodName != "" {
		out.ClusterName = d.cfg.Cluster
	}
	for _, w := range peer.Workloads {
		out.Workloads = append(out.Workloads, &flowpb.Workload{Name: w.Name, Kind: w.Kind})
	}
	return out, peer.Names
}

func (d *decoder) verdict(f *flowpb.Flow, e *model.Event) {
	switch e.Type {
	case model.EventDrop:
		f.Verdict = flowpb.Verdict_DROPPED
		setReason(f, uint32(e.Code))
		f.EventType.SubType = int32(e.Code)
		if e.Line != 0 {
			f.File = &flowpb.FileInfo{Name: d.file(e.File), Line: uint32(e.Line)}
		}
	case model.EventTrace:
		f.Verdict = flowpb.Verdict_FORWARDED
		f.EventType.SubType = int32(e.Code)
		f.TraceObservationPoint = flowtext.ObservationPoint(e.Code)
		f.TraceReason = flowpb.TraceReason(e.Reason)
	case model.EventPolicyVerdict:
		f.PolicyMatchType = uint32(e.Reason)
		switch e.Code &^ model.VerdictAudit {
		case model.VerdictAllow:
			f.Verdict = flowpb.Verdict_FORWARDED
		case model.VerdictRedirect:
			f.Verdict = flowpb.Verdict_REDIRECTED
		case model.VerdictAuth:
			f.Verdict = flowpb.Verdict_DROPPED
			setReason(f, uint32(flowpb.DropReason_AUTH_REQUIRED))
		default:
			f.Verdict = flowpb.Verdict_DROPPED
			if e.Code&model.VerdictAudit != 0 || e.Flags&model.EventAudit != 0 {
				f.Verdict = flowpb.Verdict_AUDIT
			}
			reason := flowpb.DropReason_POLICY_DENY
			if r, ok := d.rule(e.Rule); !ok || r.ref.Implicit {
				reason = flowpb.DropReason_POLICY_DENIED
			}
			setReason(f, uint32(reason))
		}
	default:
		f.Verdict = flowpb.Verdict_ERROR
		f.EventType.SubType = int32(e.Code)
	}
}

func setReason(f *flowpb.Flow, r uint32) {
	f.DropReason, f.DropReasonDesc = r, flowpb.DropReason(r)
}

func (d *decoder) file(n uint8) string {
	if name, ok := d.cfg.SourceFiles[n]; ok {
		return name
	}
	return fmt.Sprintf("file %d", n)
}

func (d *decoder) summary(f *flowpb.Flow, e *model.Event) string {
	if e.Flags&model.EventFragment != 0 {
		return flowtext.Protocol(f) + " later fragment"
	}
	if f.GetL4().GetTCP() != nil {
		return d.tcp[e.TCPFlags]
	}
	return flowtext.Summary(f)
}

// uuid is a random UUID, version 4 (RFC 9562 section 5.4).
func (d *decoder) uuid() string {
	var u [16]byte
	_, _ = d.random.Read(u[:]) // never fails
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

// stamp is a time in the API's form.
func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
