package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// Peer is one end of a connection. The first of Endpoint, Identity and Labels that is set counts.
type Peer struct {
	Endpoint   uint16           // a local workload
	Identity   model.IdentityID // one the engine knows
	Labels     model.Labels     // of a workload that need not exist
	Addr       netip.Addr       // where it is; alone, an address outside, of no workload and no node
	NamedPorts []model.NamedPort
}

// Query asks what would become of a connection's first packet.
type Query struct {
	Source, Destination Peer
	Proto               uint8
	Port                uint16 // ICMP: the type
	PortName            string // instead of Port: a named port of the destination
}

// Judgement is the verdict of one direction.
type Judgement struct {
	Verdict uint8 // model.VerdictAllow, VerdictDeny, VerdictDeny|VerdictAudit
	Rule    model.RuleRef
	Log     []string // the steps that led there
	// Default says that no entry of the list decided, so that the datapath gives a denial the reason of an implicit one.
	Default bool
	// Unknown says that no list was asked: the datapath does not know the peer where it lives, and drops the packet.
	Unknown bool
}

// Passes says whether the packet goes through.
func (j *Judgement) Passes() bool { return j == nil || j.Verdict != model.VerdictDeny }

// TraceResult answers a Query.
type TraceResult struct {
	// Verdict of both directions together: a denial, else an audited one, else allowed.
	Verdict uint8
	// Egress is that of the source, Ingress that of the destination; nil where that end is no workload, so that no
	// policy is asked.
	Egress, Ingress *Judgement
	Source          model.Labels
	Destination     model.Labels
	Port            uint16
}

// Trace answers from the lists that the datapath has; for ends that do not live here it compiles them in the same way.
func (e *Engine) Trace(q Query) (TraceResult, error) {
	src, srcSub, err := e.peer(q.Source)
	if err != nil {
		return TraceResult{}, fmt.Errorf("trace policy: source: %w", err)
	}
	dst, dstSub, err := e.peer(q.Destination)
	if err != nil {
		return TraceResult{}, fmt.Errorf("trace policy: destination: %w", err)
	}
	out := TraceResult{Verdict: model.VerdictAllow, Source: src.labels, Destination: dst.labels, Port: q.Port}
	if q.PortName != "" {
		ports := dst.ports
		if dstSub != nil {
			ports = dstSub.NamedPorts
		}
		i := slices.IndexFunc(ports, func(p model.NamedPort) bool {
			return p.Proto == q.Proto && strings.EqualFold(p.Name, q.PortName)
		})
		if i < 0 {
			return out, fmt.Errorf("trace policy: the destination has no port named %q with protocol %d", q.PortName, q.Proto)
		}
		out.Port = ports[i].Port
	}
	if srcSub != nil || src.workload() {
		out.Egress = e.judge(model.Egress, src, srcSub, dst, q.Proto, out.Port)
	}
	if dstSub != nil || dst.workload() {
		out.Ingress = e.judge(model.Ingress, dst, dstSub, src, q.Proto, out.Port)
	}
	for _, j := range []*Judgement{out.Egress, out.Ingress} {
		switch {
		case j == nil || j.Verdict == model.VerdictAllow || out.Verdict == model.VerdictDeny:
		default:
			out.Verdict = j.Verdict
		}
	}
	return out, nil
}

// workload says whether policy can select it.
func (id *identity) workload() bool {
	if id.prefix.IsValid() && !id.inside || id.world4 || id.world6 || id.node {
		return false
	}
	for _, k := range []string{"host", "world", "unmanaged", "kube-apiserver"} {
		if hasReserved(id.labels, k) {
			return false
		}
	}
	return true
}

func (e *Engine) peer(p Peer) (*identity, *subject, error) {
	id, sub, err := e.who(p)
	if err == nil && p.Addr.IsValid() && id.insider() {
		id = e.locate(id, p.Addr.Unmap())
	}
	return id, sub, err
}

// locate is an insider as a peer at an address. Lists that are made for the question go by the address itself, those in the
// kernel by its area.
func (e *Engine) locate(id *identity, a netip.Addr) *identity {
	at := netip.PrefixFrom(a, a.BitLen())
	x, _ := e.kernel.around(at)
	return id.at(e.cfg, x.ID, at)
}

func (e *Engine) who(p Peer) (*identity, *subject, error) {
	switch {
	case p.Endpoint != 0:
		s := e.local[p.Endpoint]
		if s == nil {
			return nil, nil, fmt.Errorf("endpoint %d is not known here", p.Endpoint)
		}
		if id := e.index.all[model.Peer{Identity: s.Identity}]; id != nil {
			return id, s, nil
		}
		return newIdentity(e.cfg, s.Identity, s.labels, s.NamedPorts, false), s, nil
	case p.Identity != 0:
		id := e.index.all[model.Peer{Identity: p.Identity}]
		if id == nil {
			return nil, nil, fmt.Errorf("identity %d is not known", p.Identity)
		}
		return id, nil, nil
	case p.Addr.IsValid() && len(p.Labels) == 0:
		a := p.Addr.Unmap()
		return newIdentity(e.cfg, 0, e.prefixLabels(netip.PrefixFrom(a, a.BitLen())), nil, true), nil, nil
	}
	return newIdentity(e.cfg, 0, p.Labels, p.NamedPorts, true), nil, nil
}

func (e *Engine) judge(dir model.Direction, self *identity, sub *subject, other *identity, proto uint8, port uint16) *Judgement {
	var s *set
	if sub != nil && sub.set != nil {
		s = sub.set
	} else {
		s = e.newSet(subjectOf{labels: self.labels, ports: self.ports})
		e.releaseRules(s)
	}
	sd := s.sides[dir]
	j := &Judgement{}
	list := sd.forPeer(other)
	if sub != nil && s.num != 0 {
		stands := other.peer
		if other.inside && stands.Identity != model.IdentityUnknown {
			var ok bool
			if stands, ok = e.kernel.standIn(other); !ok {
				j.Unknown = true
				j.Rule = model.RuleRef{Ingress: dir == model.Ingress, Deny: true, Implicit: true, Text: "the peer is not known to live there"}
				j.Log = append(j.Log, fmt.Sprintf("%v is not known to live at %s, and a block around it denies: dropped as unknown",
					other.labels.Strings(), other.prefix.Addr()))
				return j
			}
		}
		if class, ok := e.kernel.classes[stands]; ok {
			if list = e.kernel.rows[s.num][class][dir]; list == nil {
				list = e.kernel.rows[s.num][0][dir]
			}
		}
	}
	var id model.RuleID
	var how string
	j.Verdict, id, how, j.Default = lookup(list, proto, port)
	j.Rule, _ = e.Rule(id)
	j.Log = append(j.Log, fmt.Sprintf("%s policy of %v, peer %v%s", dir, self.labels.Strings(), other.labels.Strings(), e.where(other, sd)))
	for _, en := range sd.entries {
		ref, _ := e.Rule(en.rule)
		what := "does not match the peer"
		if en.peers == nil || en.peers.matches(other) {
			what = "matches the peer"
		}
		j.Log = append(j.Log, fmt.Sprintf("%s: %s", ref.Text, what))
	}
	fb, _ := e.Rule(sd.fallback.rule)
	j.Log = append(j.Log, "default: "+fb.Text, fmt.Sprintf("%s: %s: %s", how, verdictName(j.Verdict), j.Rule.Text))
	return j
}

// where is the address of an insider, in words, or that it would matter.
func (e *Engine) where(id *identity, sd *side) string {
	asks := func(en *entry) bool { return en.peers != nil && len(e.blocks(en.peers)) > 0 }
	switch {
	case id.inside:
		return " at " + id.prefix.Addr().String()
	case id.insider() && slices.ContainsFunc(sd.entries, asks):
		return " at no address in particular, so in no block of addresses"
	}
	return ""
}

// lookup does what the datapath does: the first entry that matches decides, else the default.
func lookup(l *model.PolicyList, proto uint8, port uint16) (verdict uint8, rule model.RuleID, how string, byDefault bool) {
	for _, en := range l.Entries {
		if en.Proto == 0 {
			return en.Verdict, en.Rule, "every protocol", false
		}
		if en.Proto == proto && en.PortLo <= port && port <= en.PortHi {
			return en.Verdict, en.Rule, fmt.Sprintf("protocol %d, ports %d to %d", en.Proto, en.PortLo, en.PortHi), false
		}
	}
	return l.DefaultVerdict, l.DefaultRule, "no entry matches", true
}

func verdictName(v uint8) string {
	switch v {
	case model.VerdictAllow:
		return "allowed"
	case model.VerdictDeny:
		return "denied"
	}
	return "audit"
}
