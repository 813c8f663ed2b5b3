package observe

import (
	crand "crypto/rand"
	"math/rand/v2"
	"net/netip"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe/flowtext"
)

// decoder names events (decode.go); what it made of one is written out as a flow (write.go) by whoever wants it. It is not
// safe for concurrent use.
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

// see names an event. It accepts any: what it cannot name stays a number. What it returns does not change any more.
func (d *decoder) see(e *model.Event) *sighting {
	s := &sighting{dec: d, ev: *e, dir: direction(e)}
	_, _ = d.random.Read(s.uuid[:]) // never fails
	from, to := d.services(s)
	s.src = d.end(s.ev.Src, e.SrcEndpoint, e.SrcIdentity)
	s.dst = d.end(s.ev.Dst, e.DstEndpoint, e.DstIdentity)
	s.src.service, s.dst.service = from, to
	if e.IfIndex != 0 {
		s.device = d.resolver.Interface(e.IfIndex)
	}
	if e.Rule != model.RuleNone {
		s.rule, s.known = d.rule(e.Rule)
	}
	s.verdict, s.reason = s.judged()
	return s
}

// services names the services whose frontends an event speaks of: of its source, and of its destination. The own end of a socket
// that talks to one gets the address of the workload that has it.
func (d *decoder) services(s *sighting) (src, dst Service) {
	e := &s.ev
	if e.Socket == 0 {
		if e.Front.IsValid() {
			dst = d.service(e.Front, e.Proto)
			if e.Flags&model.EventReply != 0 {
				src, dst = dst, src
			}
			return src, dst
		}
		if e.Flags&model.EventL4 != 0 && ported(e.Proto) {
			src, dst = d.service(netip.AddrPortFrom(e.Src, e.SrcPort), e.Proto), d.service(netip.AddrPortFrom(e.Dst, e.DstPort), e.Proto)
		}
		return src, dst
	}
	name := d.service(e.Front, e.Proto)
	a, known := d.resolver.Owner(e.Netns, e.Front.Addr().Is6())
	if backward(e) {
		if known {
			e.Dst = a
		}
		return name, Service{}
	}
	if known {
		e.Src = a
	}
	return Service{}, name
}

func (d *decoder) service(front netip.AddrPort, proto uint8) Service {
	if v, ok := d.resolver.Service(front, proto); ok {
		return v
	}
	return Service{}
}

func ported(proto uint8) bool { return proto == protoTCP || proto == protoUDP || proto == protoSCTP }

// backward says whether an event tells of the way from a service to the socket.
func backward(e *model.Event) bool {
	return e.Type == model.EventSock && (e.Code == model.SockPreRev || e.Code == model.SockPostRev)
}

// end names one end. The identity is the one that the datapath judged by; a name may be younger.
func (d *decoder) end(addr netip.Addr, id uint16, identity model.IdentityID) end {
	var peer Peer
	if addr.IsValid() {
		peer, _ = d.resolver.Endpoint(addr, id)
	}
	if id == 0 {
		id = peer.ID
	}
	if identity == model.IdentityUnknown {
		identity = peer.Identity
	}
	labels, ok := d.resolver.Identity(identity)
	if !ok {
		labels = peer.Labels
	}
	x := end{id: id, identity: identity, labels: d.labels.strings(identity, labels), workloads: peer.Workloads, names: peer.Names,
		pod: peer.Pod, at: Namespace{Cluster: peer.Cluster, Name: peer.Namespace}}
	if x.at.Name == "" {
		x.at.Name, _ = labels.Get(model.SourceK8s, model.KeyNamespace)
	}
	if x.at.Cluster == "" && x.pod != "" {
		x.at.Cluster = d.cfg.Cluster
	}
	return x
}
