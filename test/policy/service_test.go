package policy_test

import (
	"fmt"
	"net/netip"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// by is a service that a packet goes by: its own is what stands behind it.
type by struct {
	front  netip.AddrPort // whom the client asks
	row    model.Frontend
	slots  uint32 // slot set, and set of source ranges
	ranges []netip.Prefix
	deny   bool // they may not come
	admits bool
}

func (s *by) String() string {
	if s == nil {
		return "directly"
	}
	return fmt.Sprintf("by %v, ranges %v, deny %t", s.front, s.ranges, s.deny)
}

const (
	servicePort = 80
	nodePort    = 30080
)

var vip = addrs("203.0.113.200", "2001:db8:99::200")

// announce makes the addresses of services known.
func (k *kernel) announce() error {
	for _, a := range vip {
		if err := k.maps.PutFrontendAddr(a, maps.FrontendAddr{VIP: true}); err != nil {
			return err
		}
	}
	for _, a := range self.Addrs {
		if err := k.maps.PutFrontendAddr(a, maps.FrontendAddr{Node: true}); err != nil {
			return err
		}
	}
	return nil
}

// byService draws a service for a question, or none: for TCP, UDP and SCTP, from a workload here or from outside. Nodes and
// workloads elsewhere ask their own node.
func (w *world) byService(q question) *by {
	if p := q.pkt.Proto; p != 6 && p != 17 && p != 132 || q.pkt.Port == 0 || w.rand.IntN(3) > 0 {
		return nil
	}
	if q.from.place != local && q.from.place != routed {
		return nil
	}
	s := &by{front: netip.AddrPortFrom(vip[q.v], servicePort), admits: true}
	if q.pkt.Proto == 132 { // its port stays
		s.front = netip.AddrPortFrom(vip[q.v], q.pkt.Port)
	}
	s.row = model.Frontend{Addr: s.front.Addr(), Port: s.front.Port(), Proto: q.pkt.Proto}
	if q.from.place == local {
		s.row.Scope = model.Scope(w.rand.IntN(2))
	} else {
		if w.rand.IntN(2) == 0 && q.pkt.Proto != 132 {
			s.front = netip.AddrPortFrom(self.Addrs[q.v], nodePort)
			s.row.Addr, s.row.Port = [2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[q.v], nodePort
		}
		w.limit(q, s)
	}
	w.k.sets++
	s.slots = w.k.sets
	return s
}

// limit gives a service source ranges, with and without the client.
func (w *world) limit(q question, s *by) {
	client := q.from.addr[q.v]
	switch w.rand.IntN(3) {
	case 0:
		return
	case 1:
		p, err := client.Prefix(client.BitLen() - w.rand.IntN(9))
		w.must(err)
		s.ranges = []netip.Prefix{p, single(vip[q.v])}
	case 2:
		s.ranges = []netip.Prefix{single(vip[q.v])}
	}
	s.deny = w.rand.IntN(2) == 0
	in := false
	for _, p := range s.ranges {
		in = in || p.Contains(client)
	}
	s.admits = in != s.deny
}

// serve makes a question's service the one at its address, with the one asked for behind it.
func (w *world) serve(q question) {
	w.t.Helper()
	s := q.by
	if w.k.served == s {
		return
	}
	w.must(w.k.unserve())
	to := netip.AddrPortFrom(q.to.addr[q.v], q.pkt.Port)
	row := maps.Frontend{Service: 1, Slots: s.slots, Count: 1, RangesDeny: s.deny}
	w.must(w.k.maps.PutSlots(s.slots, maps.SlotSet{Slots: []maps.Slot{{To: to, Proto: q.pkt.Proto}}, Members: []netip.AddrPort{to}}))
	if len(s.ranges) > 0 {
		row.Ranges = s.slots
		w.must(w.k.maps.PutRanges(s.slots, s.ranges))
	}
	w.must(w.k.maps.PutFrontend(s.row, row))
	w.k.served, w.k.backend = s, to
}

// unserve removes the service that is there.
func (k *kernel) unserve() error {
	s := k.served
	if s == nil {
		return nil
	}
	k.served = nil
	if err := k.maps.DeleteFrontend(s.row); err != nil {
		return err
	}
	set := maps.SlotSet{Slots: []maps.Slot{{To: k.backend, Proto: s.row.Proto}}, Members: []netip.AddrPort{k.backend}}
	if err := k.maps.DeleteSlots(s.slots, set); err != nil {
		return err
	}
	return k.maps.DeleteRanges(s.slots, s.ranges)
}

// askSelf: a workload that is its own backend, which no policy forbids and nobody judges.
func (w *world) askSelf(q question) {
	w.t.Helper()
	q.to = q.from
	if q.by = w.byService(q); q.by == nil || q.pkt.Proto == 132 || q.from.place != local {
		return
	}
	if got := w.send(q, w.nextPort(), "S", false); !got.passed() || got.drop != 0 || len(got.judged) > 0 {
		w.t.Fatalf("%v: itself %v: %+v", q, q.by, got)
	}
	w.k.hairpins++
}
