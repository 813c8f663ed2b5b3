package policy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	netdev "github.com/hypha-net/hypha/bpf/host"
	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// question is a packet that opens a conversation. v is the IP version: 0 is IPv4.
type question struct {
	from, to *somebody
	v        int
	pkt      oracle.Packet
	by       *by // the service that the client asks, nil: none
}

func (q question) String() string {
	return fmt.Sprintf("IPv%d protocol %d port %d from %s to %s %v", 4+2*q.v, q.pkt.Proto, q.pkt.Port, q.from.name, q.to.name, q.by)
}

// genQuestion draws a question with a workload of this node at one end or both.
func (w *world) genQuestion(r *rand.Rand) (question, bool) {
	var q question
	var here, all []*somebody
	for _, s := range everybody {
		if w.there(s) {
			all = append(all, s)
			if s.place == local {
				here = append(here, s)
			}
		}
	}
	if len(here) == 0 {
		return q, false
	}
	if q.v = r.IntN(2); !w.v(q.v) {
		q.v = 1 - q.v
	}
	q.from, q.to = here[r.IntN(len(here))], all[r.IntN(len(all))]
	if r.IntN(2) == 0 {
		q.from, q.to = q.to, q.from
	}
	q.pkt = genPacket(r, q.v)
	tunnel := q.pkt.Proto == 17 && q.pkt.Port == 8472 // workloads may not, whatever the policy
	return q, q.from != q.to && !tunnel
}

// oracle is the world as the evaluator sees it.
func (w *world) oracle() *oracle.World {
	o := &oracle.World{Mode: string(w.cfg.Mode), Audit: w.cfg.Audit || w.audit, Localhost: w.cfg.AllowLocalhost != policy.LocalhostPolicy,
		CIDRNodes: w.cfg.CIDRMatchNodes, Cluster: w.cfg.Cluster, IPv4: w.v(0), IPv6: w.v(1), Groups: w.groups}
	for _, p := range w.policies {
		o.Policies = append(o.Policies, oracle.Policy{Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name, Audit: p.Audit,
			Rules: p.Rules, Cluster: p.Cluster})
	}
	return o
}

// end is somebody as a peer.
func (w *world) end(o *oracle.World, s *somebody, v int) oracle.End {
	id := w.identity(s)
	if id == 0 {
		return o.Outside(s.addr[v])
	}
	var at netip.Addr
	if w.knows(s) {
		at = s.addr[v]
	}
	if row, ok := w.identities[id]; ok {
		return oracle.End{Labels: row.Labels, Ports: row.NamedPorts, Addr: at}
	}
	for _, r := range model.ReservedIdentities() {
		if r.ID == id {
			return oracle.End{Labels: r.Labels, Addr: at}
		}
	}
	w.t.Fatalf("%s has identity %d, which nobody knows", s.name, id)
	return oracle.End{}
}

// knows says whether it is known here where somebody lives. Outside, an address is all there is.
func (w *world) knows(s *somebody) bool { return s.name != "unheard" }

// subject is a workload as the one whose policy is asked.
func (w *world) subject(o *oracle.World, s *somebody, v int) oracle.End {
	e := w.end(o, s, v)
	sub := w.subjects[s.ep]
	e.Ports, e.Audit = sub.NamedPorts, sub.Audit
	return e
}

// want is the verdict of one side.
type want struct {
	dir      uint8
	verdict  uint8
	rule     uint32
	implicit bool
	entry    bool // an entry of the list decided
	unknown  bool // nothing was asked: the peer is not known to live where a block may deny
}

func (x want) denies() bool { return x.verdict == model.VerdictDeny }

// sides are the verdicts of both sides, those that have a policy here. Evaluator and engine must agree on each.
func (w *world) sides(q question) []want {
	w.t.Helper()
	o := w.oracle()
	res, err := w.engine.Trace(policy.Query{Source: w.peer(q.from, q.v), Destination: w.peer(q.to, q.v), Proto: q.pkt.Proto, Port: q.pkt.Port})
	w.must(err)
	var out []want
	side := func(dir model.Direction, self, other *somebody, j *policy.Judgement) {
		verdict := o.Judge(dir, w.subject(o, self, q.v), w.end(o, other, q.v), q.pkt)
		if j == nil {
			w.t.Fatalf("%v: %s: trace says nothing", q, dir)
		}
		if j.Unknown {
			if w.knows(other) {
				w.t.Fatalf("%v: %s: %s is known, and yet: %v", q, dir, other.name, j.Log)
			}
			out = append(out, want{dir: uint8(dir), verdict: model.VerdictDeny, unknown: true})
			return
		}
		said := j.Verdict
		if w.audit && said == model.VerdictDeny {
			said |= model.VerdictAudit
		}
		if said != verdict {
			w.t.Fatalf("%v: %s: evaluator %#x, trace %#x by %q\n%v", q, dir, verdict, said, j.Rule.Text, j.Log)
		}
		if j.Rule.Text == "" {
			w.t.Fatalf("%v: %s: rule %d has no name", q, dir, j.Rule.ID)
		}
		if j.Rule.Implicit && j.Rule.Deny && !j.Default && !w.passes() {
			w.t.Fatalf("%v: %s: a default deny is an entry, though no rule says Pass: %v", q, dir, j.Log)
		}
		out = append(out, want{dir: uint8(dir), verdict: verdict, rule: uint32(j.Rule.ID), implicit: j.Rule.Implicit, entry: !j.Default})
	}
	if q.from.place == local {
		side(model.Egress, q.from, q.to, res.Egress)
	}
	if q.to.place == local {
		side(model.Ingress, q.to, q.from, res.Ingress)
	}
	return out
}

// peer is somebody as `policy trace` finds him: a workload here, or the identity that the kernel has for the address.
func (w *world) peer(s *somebody, v int) policy.Peer {
	w.t.Helper()
	if s.place == local {
		return policy.Peer{Endpoint: s.ep, Addr: s.addr[v]}
	}
	row, ok, err := w.k.maps.LookupIP(s.addr[v])
	w.must(err)
	if id := w.identity(s); !ok || id != 0 && row.Identity != id {
		w.t.Fatalf("%s %v has identity %d in the kernel, want %d", s.name, s.addr[v], row.Identity, id)
	}
	return policy.Peer{Identity: row.Identity, Addr: s.addr[v]}
}

// ports numbers a conversation: the sender's port, or the id of an echo.
func (w *world) nextPort() uint16 {
	if w.sport++; w.sport > 65000 {
		w.must(func() error { _, err := w.k.maps.FlushConnections(); return err }())
		w.sport, w.tracked = 1025, nil
	}
	return w.sport
}

// send runs a packet of a conversation through the programs that would see it. answer turns it round.
func (w *world) send(q question, sport uint16, flags string, answer bool) outcome {
	w.t.Helper()
	from, to := q.from, q.to
	f := packet.Flow{SrcMAC: packet.MAC(1), DstMAC: packet.MAC(2), Src: from.addr[q.v], Dst: to.addr[q.v], SrcPort: sport, DstPort: q.pkt.Port}
	if answer {
		f, from, to = f.Reverse(), to, from
	} else if q.by != nil {
		w.serve(q)
		f.Dst, f.DstPort = q.by.front.Addr(), q.by.front.Port()
	}
	if from.place == local {
		f.SrcMAC, f.DstMAC = from.mac(), from.hostMAC()
	}
	frame := w.frame(f, q, sport, flags, answer)
	switch from.place {
	case local:
		return w.k.run(pod.FromPod, w.k.dev[from.ep-1], frame)
	case through:
		return w.k.runTunneled(node2.Addrs[0], uint32(w.identity(from)), frame)
	}
	if q.by != nil && !answer {
		return w.k.run(netdev.FromNetdev, w.k.dev[devices-1], frame)
	}
	return w.k.run(pod.ToPod, w.k.dev[to.ep-1], frame)
}

func (w *world) frame(f packet.Flow, q question, id uint16, flags string, answer bool) []byte {
	switch q.pkt.Proto {
	case 6:
		return f.TCP(flags)
	case 17:
		return f.UDP('x')
	case 132:
		return f.SCTP()
	case 1, 58:
		typ := uint8(q.pkt.Port)
		switch {
		case echo(q.pkt) && answer:
			return f.EchoReply(id)
		case echo(q.pkt):
			return f.EchoRequest(id)
		case q.pkt == oracle.Packet{Proto: 1, Port: 0} || q.pkt == oracle.Packet{Proto: 58, Port: 129}:
			w.forget(f, uint16(typ)<<8, q.pkt.Proto)
			return f.EchoReply(id)
		}
		w.forget(f, uint16(typ)<<8, q.pkt.Proto)
		return f.ICMP(typ, 0, 1, 2, 3, 4)
	}
	w.forget(f, 0, q.pkt.Proto)
	return f.Raw(q.pkt.Proto, 0, 0, 8, 0)
}

func echo(p oracle.Packet) bool {
	return p == oracle.Packet{Proto: 1, Port: 8} || p == oracle.Packet{Proto: 58, Port: 128}
}

// forget removes the rows of a conversation without ports, which is one for all that its ends say.
func (w *world) forget(f packet.Flow, port uint16, proto uint8) {
	w.t.Helper()
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], port)
	key := layout.CTKey{Proto: proto, Addr: [2]layout.Addr{layout.AddrFrom(f.Src), layout.AddrFrom(f.Dst)}}
	sent := 0
	if f.Dst.Less(f.Src) {
		key.Addr[0], key.Addr[1] = key.Addr[1], key.Addr[0]
		sent = 1
	}
	for range 2 {
		key.Port = [2]uint16{}
		key.Port[sent] = binary.NativeEndian.Uint16(be[:])
		key.Asker = 0
		w.k.forget(key)
		key.Asker = 1
		w.k.forget(key)
		sent = 1 - sent // the other end may have begun
	}
}

// ask sends a first packet and compares what became of it with what evaluator and engine say.
func (w *world) ask(q question) {
	w.t.Helper()
	sides := w.sides(q)
	all := sides
	sport := w.nextPort()
	got := w.send(q, sport, "S", false)
	if q.by != nil {
		w.k.services++
		if !q.by.admits {
			if got.passed() || got.drop != layout.DropSourceRange || len(got.judged) > 0 {
				w.t.Fatalf("%v: not of the source ranges, but %+v", q, got)
			}
			return
		}
	}
	for i, s := range sides {
		if s.unknown {
			w.dropped(q, got, s)
			sides = sides[:i]
			break
		}
		if i >= len(got.judged) {
			w.t.Fatalf("%v: %d verdicts, want %v: %+v", q, len(got.judged), sides, got)
		}
		j := got.judged[i]
		if j.dir != s.dir || j.verdict != s.verdict || j.rule != s.rule {
			w.t.Fatalf("%v: kernel %+v, evaluator and trace %+v", q, j, s)
		}
		for k, id := range map[uint32]model.IdentityID{j.from: w.identity(q.from), j.to: w.identity(q.to)} {
			if id != 0 && k != uint32(id) {
				w.t.Fatalf("%v: event says identities %d to %d", q, j.from, j.to)
			}
		}
		w.k.judged++
		if s.denies() {
			w.dropped(q, got, s)
			sides = sides[:i+1]
			break
		}
	}
	if len(got.judged) != len(sides) {
		w.t.Fatalf("%v: %d verdicts, want %v: %+v", q, len(got.judged), sides, got)
	}
	if !slices.ContainsFunc(all, want.denies) {
		if !got.passed() || got.drop != 0 {
			w.t.Fatalf("%v: allowed by all, but %+v", q, got)
		}
		w.track(q, sport)
	}
}

// passes says whether some rule leaves the judgement to the next tier.
func (w *world) passes() bool {
	for _, p := range w.policies {
		if p.Cluster == nil {
			continue
		}
		for _, r := range p.Cluster.Ingress {
			if r.Action == v1alpha2.ActionPass {
				return true
			}
		}
		for _, r := range p.Cluster.Egress {
			if r.Action == v1alpha2.ActionPass {
				return true
			}
		}
	}
	return false
}

// dropped checks the drop and its reason: 133 when the list's default denied, 181 when an entry did.
func (w *world) dropped(q question, got outcome, s want) {
	w.t.Helper()
	reason := layout.DropPolicy
	switch {
	case s.unknown:
		reason, s.rule = layout.DropIdentity, got.rule
	case s.entry:
		reason = layout.DropPolicyDeny
	}
	if got.passed() || got.drop != reason || got.rule != s.rule {
		w.t.Fatalf("%v: %+v, want dropped for %d by rule %d", q, got, reason, s.rule)
	}
}

// conn is a connection that was allowed once.
type conn struct {
	question
	sport uint16
}

const maxTracked = 30

func (w *world) track(q question, sport uint16) {
	if q.pkt.Proto != 6 && q.pkt.Proto != 17 && q.pkt.Proto != 132 && !echo(q.pkt) {
		return
	}
	if len(w.tracked) < maxTracked {
		w.tracked = append(w.tracked, &conn{q, sport})
	}
}

// established sends both ways on every connection: what policy denies by now is dropped at once, whoever sends, and told
// by rule; what it allows goes on.
func (w *world) established() {
	w.t.Helper()
	kept := w.tracked[:0]
	for _, c := range w.tracked {
		if !w.there(c.from) || !w.there(c.to) {
			continue
		}
		kept = append(kept, c)
		sides := w.sides(c.question)
		for _, answer := range []bool{w.rand.IntN(2) == 0, true, false} {
			got := w.send(c.question, c.sport, "A", answer)
			denied := false
			for _, s := range sides {
				if s.denies() {
					w.dropped(c.question, got, s)
					denied = true
					break
				}
			}
			if !denied && (!got.passed() || got.drop != 0 || len(got.judged) != 0) {
				w.t.Fatalf("established %v, answer %t: still allowed, but %+v", c.question, answer, got)
			}
		}
	}
	w.tracked = kept
}

// check asks many questions.
func (w *world) check(n int) {
	w.t.Helper()
	w.established()
	for range n {
		if q, ok := w.genQuestion(w.rand); ok {
			q.by = w.byService(q)
			w.ask(q)
			w.askSelf(q)
		}
	}
}
