package service

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// who asks a service once, from a namespace, and returns the number of the backend that answered.
func (r *rig) who(ns *netns.NS, to netip.AddrPort, proto uint8) int {
	r.t.Helper()
	var got answer
	must(r.t, ns.Do(func() (err error) { got, err = call(to, proto, false); return err }))
	return r.number(got.from)
}

func (r *rig) number(from string) int {
	r.t.Helper()
	for i := 1; i <= 3; i++ {
		if from == place(0, i).String() || from == place(1, i).String() {
			return i
		}
	}
	r.t.Fatalf("%q is no backend", from)
	return 0
}

// Random selection gives each slot its share.
func TestWeights(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2)
	f := front(vip[0], 80, udp)
	r.put(balance(f, 1, 1, 2, 1, 1))
	const calls = 800
	n := map[int]int{}
	must(t, r.ns.Do(func() error {
		for range calls {
			got, err := call(netip.AddrPortFrom(vip[0], 80), udp, false)
			if err != nil {
				return err
			}
			n[r.number(got.from)]++
		}
		return nil
	}))
	// 200 of 800 are expected, with a standard deviation of 12.
	if n[2] < 120 || n[2] > 280 {
		t.Errorf("one slot of four got %d of %d: %v", n[2], calls, n)
	}
}

// A client with affinity stays with its backend: while that is there, active or not, and until it has not come for long.
func TestAffinity(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2, 3)
	pod := r.pod("pod", 1)
	for v := range 2 {
		f, to := front(vip[v], 80, tcp), netip.AddrPortFrom(vip[v], 80)
		b := balance(f, model.ServiceID(v+1), 1, 2, 3)
		b.Affinity = 3 * time.Hour
		r.put(b)
		first, other := r.who(r.ns, to, tcp), r.who(pod, to, tcp)
		for range 20 {
			if got := r.who(r.ns, to, tcp); got != first {
				t.Fatalf("the node was with %d, now with %d", first, got)
			}
			if got := r.who(pod, to, tcp); got != other {
				t.Fatalf("the pod was with %d, now with %d", other, got)
			}
		}
		next := first%3 + 1
		keep := balance(f, model.ServiceID(v+1), next)
		keep.Affinity, keep.Keep = b.Affinity, []model.Backend{backend(f, first)}
		r.put(keep)
		if got := r.who(r.ns, to, tcp); got != first {
			t.Errorf("%d, which only keeps what it has, lost its client to %d", first, got)
		}
		short := keep
		short.Affinity = time.Second
		r.put(short)
		time.Sleep(1100 * time.Millisecond)
		if got := r.who(r.ns, to, tcp); got != next {
			t.Errorf("after more than its time the client is with %d, want %d", got, next)
		}
		gone := balance(f, model.ServiceID(v+1), first)
		gone.Affinity = b.Affinity
		r.put(gone)
		if got := r.who(r.ns, to, tcp); got != first {
			t.Errorf("the client stayed with %d, which is gone", got)
		}
	}
}

// A client whose backend is only kept, with nobody active, stays; others are refused.
func TestKeepWithoutActive(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1)
	pod := r.pod("pod", 1)
	f, to := front(vip[0], 80, tcp), netip.AddrPortFrom(vip[0], 80)
	b := balance(f, 1, 1)
	b.Affinity = time.Hour
	r.put(b)
	r.who(r.ns, to, tcp)
	b.Slots, b.Keep = nil, b.Slots
	r.put(b)
	r.who(r.ns, to, tcp)
	must(t, pod.Do(func() error {
		if got, err := call(to, tcp, false); err == nil {
			t.Errorf("a new client was given %+v", got)
		}
		return nil
	}))
}

// The datagrams of one unconnected socket go to one backend, whatever else changes, as long as that is there.
func TestDatagramsStay(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2, 3)
	f, to := front(vip[0], 80, udp), netip.AddrPortFrom(vip[0], 80)
	r.put(balance(f, 1, 1, 2))
	must(t, r.ns.Do(func() error {
		firsts := map[int]bool{}
		for range 40 {
			s, err := open(0, udp, false)
			if err != nil {
				return err
			}
			defer s.close()
			first := 0
			for i, change := range [][]int{{1, 2}, {1, 2}, {3, 2, 1}, {1, 3, 3, 2, 1}, {2, 1}} {
				r.put(balance(f, 1, change...))
				got, err := s.send(to)
				if err != nil {
					return fmt.Errorf("datagram %d: %w", i, err)
				}
				n := r.number(got.from)
				if i == 0 {
					first = n
				}
				if n != first || got.peer != to.String() {
					t.Errorf("datagram %d went to %d, the first to %d; from %s", i, n, first, got.peer)
				}
			}
			firsts[first] = true
			r.put(balance(f, 1, 3))
			got, err := s.send(to)
			if err != nil {
				return err
			}
			if n := r.number(got.from); n != 3 {
				t.Errorf("a datagram went to %d, which is gone", n)
			}
			r.put(balance(f, 1, 1, 2))
		}
		if !firsts[1] || !firsts[2] { // one in 2^39 runs
			t.Errorf("40 sockets were with %v only", firsts)
		}
		return nil
	}))
}

// With Maglev a client comes to the same backend each time, on every node that has the same table.
func TestMaglev(t *testing.T) {
	const services, size = 30, 251
	ns := newNode(t)
	var seen [2][services]int
	used := map[int]bool{}
	for n := range seen {
		r := newRigIn(t, ns, maps.Config{}, 0)
		if n == 0 {
			r.serve(1, 2, 3)
		}
		for i := range services {
			// The nodes learn of the services in different orders.
			id := i
			if n == 1 {
				id = services - 1 - i
			}
			f := front(vip[0], uint16(1000+id), tcp)
			b := balance(f, model.ServiceID(id+1), 1, 2, 3)
			for j := range size {
				b.Table = append(b.Table, uint16(j*j%3))
			}
			r.put(b)
		}
		for i := range services {
			to := netip.AddrPortFrom(vip[0], uint16(1000+i))
			seen[n][i] = r.who(ns, to, tcp)
			used[seen[n][i]] = true
			for range 3 {
				if got := r.who(ns, to, tcp); got != seen[n][i] {
					t.Fatalf("service %d: %d, then %d", i, seen[n][i], got)
				}
			}
		}
		r.detach()
	}
	if seen[0] != seen[1] {
		t.Errorf("two nodes choose otherwise:\n%v\n%v", seen[0], seen[1])
	}
	if len(used) < 2 {
		t.Errorf("all services of one client are with %v", used)
	}
}
