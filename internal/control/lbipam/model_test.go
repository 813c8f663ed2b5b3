package lbipam

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever comes and goes: no address and port is two services', no address is of no pool, what may stay stays, what could be given is
// given, and asked again the answer is the same.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{pools: map[string]Pool{}, services: map[string]Service{}}
		t.Repeat(map[string]func(*rapid.T){
			"pool": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "pool")
				if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					delete(w.pools, name)
					return
				}
				p := Pool{Name: name, Created: w.tick(), Disabled: rapid.IntRange(0, 4).Draw(t, "disabled") == 0, Trim: rapid.Bool().Draw(t, "trim")}
				if old, ok := w.pools[name]; ok {
					p.Created = old.Created
				}
				for range rapid.IntRange(0, 2).Draw(t, "blocks") {
					from, n := rapid.IntRange(0, 15).Draw(t, "from"), rapid.IntRange(0, 3).Draw(t, "n")
					b := Block{Start: host(from).String(), Stop: host(from + n).String()}
					if rapid.Bool().Draw(t, "cidr") {
						b = Block{CIDR: netip.PrefixFrom(host(from), 29+n).String()}
					}
					p.Blocks = append(p.Blocks, b)
				}
				if rapid.IntRange(0, 2).Draw(t, "selects") == 0 {
					p.Selects = red
				}
				w.pools[name] = p
			},
			"service": func(t *rapid.T) {
				name := fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "service"))
				if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
					delete(w.services, name)
					return
				}
				s := Service{Namespace: rapid.SampledFrom([]string{"m", "n"}).Draw(t, "namespace"), Name: name, Created: w.tick(), IPv4: true}
				if old, ok := w.services[name]; ok {
					s.Namespace, s.Created, s.Has = old.Namespace, old.Created, old.Has
				}
				s.SharingKey = rapid.SampledFrom([]string{"", "k", "l"}).Draw(t, "key")
				s.SharingWith = rapid.SampledFrom([][]string{nil, {"*"}, {"m"}}).Draw(t, "with")
				for range rapid.IntRange(1, 2).Draw(t, "ports") {
					s.Ports = append(s.Ports, Port{"TCP", int32(rapid.IntRange(1, 3).Draw(t, "port"))})
				}
				s.Labels = map[string]string{"color": rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "color")}
				for range rapid.IntRange(0, 1).Draw(t, "requested") {
					s.Requested = append(s.Requested, host(rapid.IntRange(0, 18).Draw(t, "address")))
				}
				w.services[name] = s
			},
			"": w.check,
		})
	})
}

type world struct {
	now      int64
	pools    map[string]Pool
	services map[string]Service
}

func (w *world) tick() int64 { w.now++; return w.now }

func host(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }

func (w *world) ask() (map[string]Answer, map[string]PoolState) {
	var pools []Pool
	var services []Service
	for _, p := range w.pools { // in any order
		pools = append(pools, p)
	}
	for _, s := range w.services {
		services = append(services, s)
	}
	return Decide(pools, services)
}

// in says whether a pool has an address, reckoned one by one; given: whether it may give it.
func in(p Pool, a netip.Addr, given bool) bool {
	for _, b := range p.Blocks {
		if b.CIDR == "" {
			if from, to := netip.MustParseAddr(b.Start), netip.MustParseAddr(b.Stop); from.Compare(a) <= 0 && a.Compare(to) <= 0 {
				return true
			}
			continue
		}
		x := netip.MustParsePrefix(b.CIDR).Masked()
		inner := x.Contains(a.Prev()) && x.Contains(a.Next())
		if x.Contains(a) && (!given || !p.Trim || x.Bits() >= 31 || inner) {
			return true
		}
	}
	return false
}

// conflicts says whether an older pool has an address of this one.
func (w *world) conflicts(p Pool) bool {
	for _, o := range w.pools {
		for n := range 32 {
			if o.Created < p.Created && in(o, host(n), false) && in(p, host(n), false) {
				return true
			}
		}
	}
	return false
}

// could says whether a service could be given an address, if nobody had it.
func (w *world) could(s Service, a netip.Addr) bool {
	for _, p := range w.pools {
		if !p.Disabled && in(p, a, true) && (p.Selects == nil || p.Selects(&s)) && !w.conflicts(p) {
			return true
		}
	}
	return false
}

func (w *world) check(t *rapid.T) {
	answers, states := w.ask()
	owner := map[string]string{}
	users := map[netip.Addr][]Service{}
	for name, s := range w.services {
		a := answers[s.Key()]
		for _, ip := range a.IPs {
			users[ip] = append(users[ip], s)
			for _, p := range s.Ports {
				k := fmt.Sprint(ip, p)
				if o, ok := owner[k]; ok && o != name {
					t.Fatalf("%s is %s's and %s's", k, o, name)
				}
				owner[k] = name
			}
			if len(s.Requested) > 0 && !slices.Contains(s.Requested, ip) {
				t.Fatalf("%s has %s, which it did not ask for", name, ip)
			}
			held := false
			for _, p := range w.pools {
				held = held || in(p, ip, false) && (p.Selects == nil || p.Selects(&s))
			}
			if !held || !slices.Contains(s.Has, ip) && !w.could(s, ip) {
				t.Fatalf("%s has %s, which no pool gives it", name, ip)
			}
		}
	}
	for ip, ss := range users {
		for i, a := range ss {
			for _, b := range ss[:i] {
				if a.SharingKey == "" || a.SharingKey != b.SharingKey {
					t.Fatalf("%s: %s and %s did not want to share", ip, a.Name, b.Name)
				}
			}
		}
	}
	for name, s := range w.services {
		got := answers[s.Key()].IPs
		if len(s.Requested) == 0 && len(got) == 0 {
			for n := range 32 {
				if w.could(s, host(n)) && len(users[host(n)]) == 0 {
					t.Fatalf("%s has nothing, and %s is free", name, host(n))
				}
			}
		}
		// Alone with its address it keeps it, or has what it asked for instead.
		for _, ip := range s.Has {
			held := len(s.Requested) == 0 || slices.Contains(s.Requested, ip)
			for _, p := range w.pools {
				if held && in(p, ip, false) && (p.Selects == nil || p.Selects(&s)) && len(users[ip]) == 0 {
					t.Fatalf("%s lost %s to nobody", name, ip)
				}
			}
		}
	}
	for name, p := range w.pools {
		if st := states[name]; st.Conflict() != w.conflicts(p) {
			t.Fatalf("pool %s: %+v", name, st)
		}
	}
	for name, s := range w.services { // a restart: what was given is all that is known
		s.Has = answers[s.Key()].IPs
		w.services[name] = s
	}
	if again, _ := w.ask(); !reflect.DeepEqual(texts(again), texts(answers)) {
		t.Fatalf("asked again: %v, before: %v", again, answers)
	}
}

func texts(answers map[string]Answer) map[string]string {
	out := map[string]string{}
	for k, a := range answers {
		out[k] = fmt.Sprint(a)
	}
	return out
}
