package datapath_test

import (
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
)

// end is one end of a packet; set is 0 for who is not a workload of this node.
type end struct {
	id, set uint32
	lax     bool   // what policy denies passes
	leaving bool   // is about to be somebody else: no verdict about it is kept,
	next    uint32 // namely this one
}

// socket is an address with a port, in an order.
type socket struct {
	addr netip.Addr
	port uint16
}

// name identifies a conversation, whichever way a packet goes.
type name struct {
	a, b  socket
	proto uint8
	how   string // "pair", "echo" (a asks b), "message" (a to b)
}

// conversation is the name of a flow. An echo that nobody asked for is a message of its own kind.
func conversation(f flow, message bool) name {
	if !f.icmp() {
		a, b := socket{f.src, f.sport}, socket{f.dst, f.dport}
		if b.addr.Less(a.addr) {
			a, b = b, a
		}
		return name{a, b, f.proto, "pair"}
	}
	is, asks := f.echo()
	switch {
	case !is || message:
		return name{socket{f.src, uint16(f.typ)<<8 | uint16(f.code)}, socket{addr: f.dst}, f.proto, "message"}
	case asks:
		return name{socket{f.src, f.sport}, socket{addr: f.dst}, f.proto, "echo"}
	}
	return name{socket{f.dst, f.sport}, socket{addr: f.src}, f.proto, "echo"}
}

type conn struct {
	by       netip.Addr // who began it
	ids      [2]uint32  // as whom, and the other end, when it was judged last
	epoch    uint32
	unkept   bool    // the verdict was for once
	finished [2]bool // by who began it, by the other
	reset    bool
}

// stale says whether a packet of either end is judged, whatever was said before.
func (c *conn) stale(epoch uint32) bool { return c.unkept || c.epoch != epoch }

func (c *conn) closing() bool { return c.reset || c.finished[0] && c.finished[1] }

type piece struct {
	src, dst netip.Addr
	proto    uint8
	id       uint32
}

// memory is what the datapath remembers of packets.
type memory struct {
	conns  map[name]*conn
	pieces map[piece]flow
	nat    ledger
}

func newMemory() memory {
	return memory{conns: map[name]*conn{}, pieces: map[piece]flow{}, nat: newLedger()}
}

// follow lets later fragments share the ports of their first one.
func (m *memory) follow(p *view) uint8 {
	k := piece{p.src, p.dst, p.proto, p.fragID}
	switch {
	case p.first && p.complaint:
		return maps.DropFragment
	case p.first:
		m.pieces[k] = p.flow
	case p.rest:
		f, ok := m.pieces[k]
		if !ok {
			return maps.DropFirstFragment
		}
		p.sport, p.dport, p.typ, p.code = f.sport, f.dport, f.typ, f.code
	}
	return 0
}

// denial is why a packet does not pass, and the rule that says so.
type denial struct {
	why  uint8
	rule uint32
}

var none denial

// asked is the port that policies speak of.
func asked(f flow, against bool) uint16 {
	if f.icmp() {
		if is, asks := f.echo(); is && !asks && against {
			return map[uint8]uint16{icmp4: 8, icmp6: 128}[f.proto]
		}
		return uint16(f.typ)
	}
	if against {
		return f.sport
	}
	return f.dport
}

// judge asks the policies of both ends about a flow, in the direction of its conversation.
func (w *town) judge(f flow, from, to end, against bool) denial {
	port := asked(f, against)
	fromAt, toAt := f.src, f.dst
	if against {
		from, to, fromAt, toAt = to, from, toAt, fromAt
	}
	if from.set != 0 {
		if d := w.rule(from, maps.PolicyEgress, to.id, toAt, f.proto, port); d != none {
			return d
		}
	}
	if to.set != 0 {
		return w.rule(to, maps.PolicyIngress, from.id, fromAt, f.proto, port)
	}
	return none
}

func (w *town) rule(whose end, dir, other uint32, at netip.Addr, proto uint8, port uint16) denial {
	r, why := w.law.ask(whose.set, dir, other, at, proto, port)
	if why != 0 {
		return denial{why: why}
	}
	switch r.verdict & maps.VerdictMask {
	case maps.VerdictAllow:
		return none
	case maps.VerdictRedirect:
		return denial{maps.DropProxy, r.rule}
	case maps.VerdictDeny:
		if r.verdict&maps.VerdictAudit != 0 || whose.lax {
			return none
		}
		if r.silent {
			return denial{maps.DropPolicy, r.rule}
		}
		return denial{maps.DropPolicyDeny, r.rule}
	}
	return denial{maps.DropAuth, r.rule}
}

// admit says whether a packet may pass, and puts it on record. against is set for packets of a conversation that the other
// end began. An answer passes only as part of a conversation on record.
func (o *oracle) admit(p *view, from, to end, answer bool) (against bool, d denial) {
	if p.complaint {
		return o.admitError(p, from, to)
	}
	key := conversation(p.flow, false)
	c := o.conns[key]
	if is, asks := p.echo(); c == nil && is && !asks {
		key = conversation(p.flow, true)
		c = o.conns[key]
	}
	if c != nil {
		against = c.by != p.src
		const syn, ack, rst = 2, 16, 4
		if p.proto == tcp && p.flags&(syn|ack|rst) == syn && (against || c.closing()) {
			c, against = nil, false
		}
	}
	if c == nil && answer {
		return false, denial{why: maps.DropCTState}
	}
	if c != nil && against {
		from, to = from.answering(), o.spokenFor(c, p, to)
	}
	if sender := map[bool]int{false: 0, true: 1}[against]; c == nil || c.stale(o.town.epoch) || from.leaving || c.ids[sender] != from.id {
		if d := o.town.judge(p.flow, from, to, against); d != none {
			return against, d
		}
		if c == nil {
			c = &conn{by: p.src}
			o.conns[key] = c
		}
		c.ids[sender], c.ids[1-sender] = from.id, to.id
		c.epoch, c.unkept = o.town.epoch, from.leaving
	}
	if p.proto == tcp && p.known {
		side := map[bool]int{false: 0, true: 1}[against]
		c.reset = c.reset || p.flags&4 != 0
		// A segment that resets says nothing else; one that begins a conversation may do both.
		if p.flags&1 != 0 && p.flags&4 == 0 {
			c.finished[side] = true
		}
	}
	return against, none
}

// answering is as whom an end answers: what is asked of it is asked of who it becomes.
func (e end) answering() end {
	if e.leaving {
		e.id = e.next
	}
	return e
}

// spokenFor is who the receiver of an answer is: a client outside for whom the node behind which it seems to be speaks stays that.
func (o *oracle) spokenFor(c *conn, p *view, to end) end {
	if who := o.town.at(p.dst); outside(c.ids[0]) && who != nil && who.role == behind {
		to.id = c.ids[0]
	}
	return to
}

// admitError: an error shares the fate of what it is about.
func (o *oracle) admitError(p *view, from, to end) (against bool, d denial) {
	c := o.conns[conversation(p.about, false)]
	if c == nil {
		return false, denial{why: maps.DropCTState}
	}
	if p.about.src != p.src { // told by a router on the way
		who := o.town.at(p.about.src)
		if from.set != 0 || who == nil || who.role == local || who.role == nobody || who.role == behind {
			return false, denial{why: maps.DropCTState}
		}
		from = end{id: who.id}
	}
	against = c.by != p.about.src
	if against {
		from, to = from.answering(), o.spokenFor(c, p, to)
	}
	if c.stale(o.town.epoch) {
		return against, o.town.judge(p.about, from, to, against)
	}
	return against, none
}
