package datapath_test

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// article is one line of a policy: the first that covers a packet decides, in a long list the narrowest.
type article struct {
	proto   uint8 // 0 = any, whatever the port
	lo, hi  uint16
	verdict uint8
	rule    uint32
}

func (a article) covers(proto uint8, port uint16) bool {
	return a.proto == 0 || a.proto == proto && port >= a.lo && port <= a.hi
}

type chapter struct {
	list    []article
	long    bool // in the overflow map
	verdict uint8
	rule    uint32
}

type about struct{ set, class, dir uint32 }

type law map[about]chapter

// ruling is what a policy says.
type ruling struct {
	verdict uint8
	rule    uint32
	silent  bool // nothing covered the packet: the default
}

func (c chapter) decide(proto uint8, port uint16) ruling {
	var best *article
	for i, a := range c.list {
		if !a.covers(proto, port) {
			continue
		}
		if !c.long {
			best = &c.list[i]
			break
		}
		if best == nil || best.proto == 0 && a.proto != 0 || best.proto != 0 && a.proto != 0 && a.hi-a.lo < best.hi-best.lo {
			best = &c.list[i]
		}
	}
	if best == nil {
		return ruling{c.verdict, c.rule, true}
	}
	return ruling{best.verdict, best.rule, false}
}

// ask returns a ruling about who is at an address, or why there is none.
func (l law) ask(set, dir, identity uint32, a netip.Addr, proto uint8, port uint16) (ruling, uint8) {
	class, known := classOf(identity, a)
	if !known {
		return ruling{}, maps.DropIdentity
	}
	c, ok := l[about{set, class, dir}]
	if !ok {
		if c, ok = l[about{set, maps.ClassAny, dir}]; !ok {
			return ruling{}, maps.DropNoPolicy
		}
	}
	return c.decide(proto, port), 0
}

var (
	protos = []uint8{6, 6, 17, 17, 132, 1, 58, 47}
	ports  = []uint16{80, 80, 81, 443, tunnelPort, 20000, 20001, 20002, 29999, 40000}
)

func someVerdict(r *rand.Rand) uint8 {
	switch n := r.IntN(20); {
	case n < 12:
		return maps.VerdictAllow
	case n < 17:
		return maps.VerdictDeny
	case n == 17:
		return maps.VerdictDeny | maps.VerdictAudit
	case n == 18:
		return maps.VerdictRedirect
	}
	return maps.VerdictAuth
}

func someChapter(r *rand.Rand, rule *uint32) chapter {
	next := func() uint32 { *rule++; return *rule }
	c := chapter{long: r.IntN(5) == 0, verdict: maps.VerdictAllow, rule: next()}
	if r.IntN(3) == 0 {
		c.verdict = someVerdict(r)
	}
	had := map[article]bool{}
	for range r.IntN(6) {
		a := article{proto: pick(r, append(protos, 0)), verdict: someVerdict(r), rule: next()}
		port := pick(r, ports)
		if a.proto == 1 || a.proto == 58 {
			port = pick(r, []uint16{0, 8, 13, 128, 129})
		}
		width := r.IntN(17) // a block of 2^width ports
		a.lo = port >> width << width
		a.hi = a.lo + uint16(1<<width-1)
		if a.proto == 0 {
			a.lo, a.hi = 0, 0xffff
		} else if !c.long && r.IntN(2) == 0 {
			a.lo, a.hi = port, port+uint16(r.IntN(3))
		}
		if key := (article{proto: a.proto, lo: a.lo, hi: a.hi}); c.long && had[key] {
			continue // one row
		} else {
			had[key] = true
		}
		c.list = append(c.list, a)
	}
	return c
}

// legislate makes new policies for everybody and puts them in force.
func (w *town) legislate(r *rand.Rand) {
	for k, c := range w.law {
		w.repeal(k, c)
	}
	w.law = law{}
	rule := uint32(1000 * r.IntN(1000))
	for _, p := range w.pods {
		for _, dir := range []uint32{maps.PolicyIngress, maps.PolicyEgress} {
			for _, class := range []uint32{maps.ClassAny, 1, 2, 6, 7, 8, 11, 12, 13, 21, 23, 25, 31, 32, 33, 34, 35, 36, 37, 38, 39} {
				if class == maps.ClassAny && r.IntN(20) > 0 || r.IntN(4) == 0 {
					w.enact(about{p.Set, class, dir}, someChapter(r, &rule))
				}
			}
		}
	}
	w.lax = map[uint16]bool{}
	w.audit = r.IntN(20) == 0
	for _, p := range w.pods {
		w.lax[p.ID] = r.IntN(20) == 0
		for v := range 2 {
			row := maps.Endpoint{Ifindex: uint32(p.Dev), Identity: p.Identity, PolicySet: p.Set, Id: p.ID, Mac: [6]uint8(p.MAC), HostMac: [6]uint8(p.HostMAC)}
			if w.lax[p.ID] {
				row.Flags = maps.EndpointAudit
			}
			w.e.Put(w.e.Maps.EndpointsV1, maps.AddrFrom(p.Addr(v)), row)
		}
	}
	w.epoch++
	state := maps.State{Epoch: w.epoch}
	if w.audit {
		state.Flags = maps.StateAudit
	}
	w.e.PutState(state)
}

func (w *town) enact(k about, c chapter) {
	w.law[k] = c
	v := maps.PolicyValue{DefaultRule: c.rule, DefaultVerdict: c.verdict}
	var list []maps.PolicyEntry
	if c.long {
		v.Flags = maps.PolicyOverflow
	}
	for _, a := range c.list {
		e := maps.PolicyEntry{Proto: a.proto, PortLo: a.lo, PortHi: a.hi, Verdict: a.verdict, Rule: a.rule}
		if c.long {
			w.e.Put(w.e.Maps.PolicyOverflowV1, a.key(k), e)
		} else {
			list = append(list, e)
		}
	}
	w.e.PutPolicy(k.set, k.class, k.dir, v, list...)
}

func (w *town) repeal(k about, c chapter) {
	_ = w.e.Maps.PolicyV1.Delete(maps.PolicyKey{Set: k.set, Class: k.class, Dir: k.dir})
	for _, a := range c.list {
		if c.long {
			_ = w.e.Maps.PolicyOverflowV1.Delete(a.key(k))
		}
	}
}

// key is the row of a block of ports in the overflow map.
func (a article) key(k about) maps.PolicyOverflowKey {
	o := maps.PolicyOverflowKey{Prefixlen: maps.PolicyOverflowAnyPort, Set: k.set, Class: k.class, Dir: uint8(k.dir), Proto: a.proto}
	if a.proto != 0 {
		o.Prefixlen += uint32(bits.LeadingZeros16(a.hi - a.lo))
		o.Port = a.lo>>8 | a.lo<<8
	}
	return o
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// endpoint is a workload as one end of a packet.
func (w *town) endpoint(p *bpftest.Pod) end {
	return end{id: p.Identity, set: p.Set, lax: w.audit || w.lax[p.ID]}
}
