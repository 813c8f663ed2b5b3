package ipcache

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

var equateIP = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// fake is a kernel in memory that can be full.
type fake struct {
	rows    map[netip.Prefix]dpmaps.IP
	classes map[model.Peer]model.ClassID
	epoch   int
	full    bool
	writes  int
	was     map[netip.Addr]model.IdentityID
}

func (f *fake) PutIP(p netip.Prefix, ip dpmaps.IP) error {
	if _, ok := f.rows[p]; f.full && !ok {
		return dpmaps.ErrFull
	}
	f.writes++
	f.rows[p] = ip
	return nil
}
func (f *fake) DeleteIP(p netip.Prefix) error                  { f.writes++; delete(f.rows, p); return nil }
func (f *fake) PutWas(a netip.Addr, id model.IdentityID) error { f.was[a] = id; return nil }
func (f *fake) DeleteWas(a netip.Addr) error                   { delete(f.was, a); return nil }
func (f *fake) Was() (map[netip.Addr]model.IdentityID, error)  { return maps.Clone(f.was), nil }
func (f *fake) IPs() (map[netip.Prefix]dpmaps.IP, error) {
	return maps.Clone(f.rows), nil
}
func (f *fake) Classes() (map[model.Peer]model.ClassID, error) { return f.classes, nil }
func (f *fake) BumpEpoch() error                               { f.epoch++; return nil }

func (f *fake) lookup(a netip.Addr) dpmaps.IP {
	for b := a.BitLen(); b >= 0; b-- {
		if row, ok := f.rows[netip.PrefixFrom(a, b).Masked()]; ok {
			return row
		}
	}
	return dpmaps.IP{}
}

func newFake(ids ...model.IdentityID) *fake {
	f := &fake{rows: map[netip.Prefix]dpmaps.IP{}, was: map[netip.Addr]model.IdentityID{}, classes: map[model.Peer]model.ClassID{}}
	for _, id := range ids {
		f.classes[model.Peer{Identity: id}] = 1
	}
	return f
}

// tb is what *testing.T and *rapid.T share.
type tb interface {
	Helper()
	Fatal(...any)
}

func newCache(t tb, k Kernel) *Cache {
	t.Helper()
	c, err := New(Config{Overlay: true}, Deps{Log: slog.New(slog.DiscardHandler), Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStrongestSourceCounts(t *testing.T) {
	k := newFake(100, 200)
	c := newCache(t, k)
	p := pfx("10.0.0.1/32")
	must(t, c.Upsert(p, model.IPEntry{Identity: 100, Source: model.IPSourceKVStore}))
	must(t, c.Upsert(p, model.IPEntry{Identity: 200, Source: model.IPSourceLocal}))
	must(t, c.Upsert(p, model.IPEntry{Identity: 100, Source: model.IPSourceKVStore}))
	if k.rows[p].Identity != 200 || k.epoch != 1 {
		t.Errorf("identity %d, epoch %d; want 200, 1", k.rows[p].Identity, k.epoch)
	}
	must(t, c.Delete(p, model.IPSourceLocal))
	if k.rows[p].Identity != 100 || k.epoch != 2 {
		t.Errorf("identity %d, epoch %d; want 100, 2", k.rows[p].Identity, k.epoch)
	}
	must(t, c.Delete(p, model.IPSourceKVStore))
	if _, ok := k.rows[p]; ok || k.epoch != 3 {
		t.Errorf("row there: %v, epoch %d; want gone, 3", ok, k.epoch)
	}
}

// Connections on record know behind which node their ends live: an address that moves to another one
// starts a new epoch; so does one that moves behind the overlay, where who sends under it from outside is a liar.
func TestAddressThatMoves(t *testing.T) {
	k := newFake(100)
	c := newCache(t, k)
	p, node1, node2 := pfx("10.0.0.1/32"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	must(t, c.Upsert(pfx("10.0.0.0/24"), model.IPEntry{Tunnel: node1, Source: model.IPSourceKVStore}))
	for i, step := range []struct {
		tunnel netip.Addr
		epoch  int
	}{{node1, 0}, {node2, 1}, {node2, 1}, {netip.Addr{}, 2}, {node1, 3}} {
		must(t, c.Upsert(p, model.IPEntry{Identity: 100, Tunnel: step.tunnel, Source: model.IPSourceKVStore}))
		if k.epoch != step.epoch {
			t.Fatalf("step %d: epoch %d, want %d", i, k.epoch, step.epoch)
		}
	}
	must(t, c.Upsert(p, model.IPEntry{Identity: 100, Tunnel: node2, Source: model.IPSourceLocal}))
	must(t, c.Delete(p, model.IPSourceLocal))
	if k.epoch != 5 {
		t.Errorf("epoch %d, want 5", k.epoch)
	}
}

func TestPolicyPrefixKeepsTheWay(t *testing.T) {
	const cidr = model.IdentityScopeLocal + 1
	k := newFake(9, 100, cidr)
	c := newCache(t, k)
	node := netip.MustParseAddr("192.0.2.2")
	must(t, c.Upsert(pfx("0.0.0.0/0"), model.IPEntry{Identity: 9, Source: model.IPSourceGenerated}))
	must(t, c.PutPolicyPrefixes(map[netip.Prefix]model.IdentityID{pfx("10.1.0.128/25"): cidr, pfx("10.1.0.5/32"): cidr, pfx("0.0.0.0/0"): cidr}))
	want := dpmaps.IP{Identity: cidr}
	if k.rows[pfx("10.1.0.128/25")] != want || k.rows[pfx("0.0.0.0/0")].Identity != cidr {
		t.Errorf("outside a pod range: %+v, %+v", k.rows[pfx("10.1.0.128/25")], k.rows[pfx("0.0.0.0/0")])
	}
	// A pod range comes to lie around them.
	must(t, c.Upsert(pfx("10.1.0.0/24"), model.IPEntry{Identity: 9, Tunnel: node, NoMasq: true, Source: model.IPSourceKVStore}))
	want = dpmaps.IP{Identity: cidr, Tunnel: node, Overlay: true, NoMasq: true}
	for _, p := range []netip.Prefix{pfx("10.1.0.128/25"), pfx("10.1.0.5/32")} {
		if k.rows[p] != want {
			t.Errorf("%s in a pod range: %+v, want %+v", p, k.rows[p], want)
		}
	}
	// A workload at the very address knows better, and leaves the prefix again.
	must(t, c.Upsert(pfx("10.1.0.5/32"), model.IPEntry{Identity: 100, Tunnel: node, Source: model.IPSourceKVStore}))
	if id := k.rows[pfx("10.1.0.5/32")].Identity; id != 100 {
		t.Errorf("workload has identity %d", id)
	}
	must(t, c.Delete(pfx("10.1.0.5/32"), model.IPSourceKVStore))
	if k.rows[pfx("10.1.0.5/32")] != want {
		t.Errorf("after the workload: %+v", k.rows[pfx("10.1.0.5/32")])
	}
	must(t, c.DeletePolicyPrefixes([]netip.Prefix{pfx("10.1.0.128/25"), pfx("10.1.0.5/32"), pfx("0.0.0.0/0")}))
	if len(k.rows) != 2 || k.rows[pfx("0.0.0.0/0")].Identity != 9 {
		t.Errorf("left: %+v", k.rows)
	}
}

func TestUnknownIdentityWaits(t *testing.T) {
	k := newFake(100)
	c := newCache(t, k)
	p, q := pfx("10.0.0.1/32"), pfx("10.0.0.2/32")
	must(t, c.Upsert(p, model.IPEntry{Identity: 300, Source: model.IPSourceKVStore}))
	if len(k.rows) != 0 {
		t.Fatalf("written before its class: %+v", k.rows)
	}
	must(t, c.Upsert(q, model.IPEntry{Identity: 100, Source: model.IPSourceKVStore}))
	must(t, c.Upsert(q, model.IPEntry{Identity: 300, Source: model.IPSourceKVStore}))
	if row, ok := k.rows[q]; !ok || row.Identity != 0 || k.epoch != 1 {
		t.Fatalf("keeps its old identity: %+v %v, epoch %d", row, ok, k.epoch)
	}
	if _, waiting, _ := c.Status(); waiting != 2 {
		t.Errorf("%d wait, want 2", waiting)
	}
	must(t, c.ClassesKnown([]model.IdentityID{300}))
	if k.rows[p].Identity != 300 || k.rows[q].Identity != 300 {
		t.Errorf("after the class is known: %+v", k.rows)
	}
}

func TestNothingFoundAtStartGoesBeforeComplete(t *testing.T) {
	const cidr = model.IdentityScopeLocal + 1
	k := newFake(100, 200, cidr, 9)
	node := netip.MustParseAddr("192.0.2.2")
	k.rows = map[netip.Prefix]dpmaps.IP{
		pfx("0.0.0.0/0"):   {Identity: 9},
		pfx("10.0.0.1/32"): {Identity: 100}, pfx("10.0.0.2/32"): {Identity: 200},
		pfx("10.1.0.0/24"):   {Identity: 9, Tunnel: node, Overlay: true, NoMasq: true},
		pfx("10.1.0.128/25"): {Identity: cidr, Tunnel: node, Overlay: true, NoMasq: true},
	}
	before := maps.Clone(k.rows)
	c := newCache(t, k)
	must(t, c.Upsert(pfx("10.0.0.1/32"), model.IPEntry{Identity: 100, Source: model.IPSourceKVStore}))
	must(t, c.Upsert(pfx("0.0.0.0/0"), model.IPEntry{Identity: 9, Source: model.IPSourceGenerated}))
	must(t, c.PutPolicyPrefixes(map[netip.Prefix]model.IdentityID{pfx("10.1.0.128/25"): cidr}))
	if d := cmp.Diff(before, k.rows, equateIP); d != "" || k.writes != 0 || k.epoch != 0 {
		t.Fatalf("%d writes, epoch %d: %s", k.writes, k.epoch, d)
	}
	must(t, c.Upsert(pfx("10.1.0.0/24"), model.IPEntry{Identity: 9, Tunnel: node, NoMasq: true, Source: model.IPSourceKVStore}))
	must(t, c.Complete())
	delete(before, pfx("10.0.0.2/32"))
	if d := cmp.Diff(before, k.rows, equateIP); d != "" || k.epoch != 1 {
		t.Fatalf("epoch %d: %s", k.epoch, d)
	}
}

// An agent that was killed wrote down what it knew some seconds ago; the kernel had heard the last of it.
func TestKernelKnowsBetterThanTheFile(t *testing.T) {
	k := newFake(100, 200, 300)
	a, b := pfx("10.0.0.1/32"), pfx("10.0.0.2/32")
	k.rows[a] = dpmaps.IP{Identity: 200}
	c := newCache(t, k)
	for _, p := range []netip.Prefix{a, b} {
		must(t, c.Upsert(p, model.IPEntry{Identity: 100, Source: model.IPSourceRestored}))
	}
	if k.rows[a].Identity != 200 || k.rows[b].Identity != 100 || k.epoch != 0 {
		t.Fatalf("from the file: %+v, epoch %d; want the kernel's own row kept", k.rows, k.epoch)
	}
	// The store speaks, as the agent passes it on.
	must(t, c.Upsert(a, model.IPEntry{Identity: 300, Source: model.IPSourceKVStore}))
	must(t, c.Delete(a, model.IPSourceRestored))
	must(t, c.Delete(b, model.IPSourceRestored))
	if _, ok := k.rows[b]; k.rows[a].Identity != 300 || ok {
		t.Fatalf("from the store: %+v", k.rows)
	}
}

func TestFullKernelIsToldAndRetried(t *testing.T) {
	k := newFake(100)
	c := newCache(t, k)
	k.full = true
	p := pfx("10.0.0.1/32")
	if err := c.Upsert(p, model.IPEntry{Identity: 100, Source: model.IPSourceKVStore}); !errors.Is(err, dpmaps.ErrFull) {
		t.Fatalf("error %v", err)
	}
	if _, _, failed := c.Status(); failed != 1 {
		t.Error("status does not tell")
	}
	k.full = false
	must(t, c.Retry())
	if k.rows[p].Identity != 100 {
		t.Error("not retried")
	}
}

// TestCase18OrderDoesNotMatter: what stands in the kernel at the end depends on what was said last, not on the order among sources and prefixes; and
// whenever an address changed or lost its identity the epoch went up.
func TestCase18OrderDoesNotMatter(t *testing.T) {
	sc, runs := score.Start(t, "18", "address events in any order, against a model"), 0
	prefixes := []netip.Prefix{pfx("0.0.0.0/0"), pfx("10.0.0.0/8"), pfx("10.0.0.0/24"), pfx("10.0.0.128/25"), pfx("10.0.0.129/32"),
		pfx("10.0.0.130/32"), pfx("10.0.1.1/32")}
	probes := []string{"10.0.0.1", "10.0.0.128", "10.0.0.129", "10.0.0.130", "10.0.1.1", "10.9.9.9", "8.8.8.8"}
	entry := rapid.Custom(func(t *rapid.T) *model.IPEntry {
		if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
			return nil
		}
		e := &model.IPEntry{Identity: rapid.SampledFrom([]model.IdentityID{0, 9, 100, 200, 300}).Draw(t, "identity"),
			NoMasq: rapid.Bool().Draw(t, "nomasq"), LocalCIDR: rapid.Bool().Draw(t, "local")}
		if rapid.Bool().Draw(t, "remote") {
			e.Tunnel = netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(t, "node"))})
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		runs++
		k := newFake(9, 100, 200, model.IdentityScopeLocal+1, model.IdentityScopeLocal+2) // 300 is not known
		c := newCache(t, k)
		type said struct {
			p netip.Prefix
			s model.IPSource
		}
		last := map[said]*model.IPEntry{}
		policy := map[netip.Prefix]model.IdentityID{}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			before := map[string]model.IdentityID{}
			for _, a := range probes {
				before[a] = k.lookup(netip.MustParseAddr(a)).Identity
			}
			epoch, bump := k.epoch, true
			p := rapid.SampledFrom(prefixes).Draw(t, "prefix")
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				bump = false
				policy[p] = model.IdentityScopeLocal + model.IdentityID(rapid.IntRange(1, 2).Draw(t, "cidr"))
				must(t, c.PutPolicyPrefixes(map[netip.Prefix]model.IdentityID{p: policy[p]}))
			case 1:
				bump = false
				delete(policy, p)
				must(t, c.DeletePolicyPrefixes([]netip.Prefix{p}))
			default:
				s := rapid.SampledFrom([]model.IPSource{model.IPSourceGenerated, model.IPSourceKVStore, model.IPSourceLocal}).Draw(t, "source")
				e := entry.Draw(t, "entry")
				last[said{p, s}] = e
				if e == nil {
					must(t, c.Delete(p, s))
				} else {
					e.Source = s
					must(t, c.Upsert(p, *e))
				}
			}
			for _, a := range probes {
				now := k.lookup(netip.MustParseAddr(a)).Identity
				if bump && before[a] != 0 && before[a] != now && k.epoch == epoch {
					t.Fatalf("%s went from identity %d to %d in the same epoch", a, before[a], now)
				}
			}
		}
		check(t, k, policy, func(p netip.Prefix) *model.IPEntry {
			var best *model.IPEntry
			for x, e := range last {
				if x.p == p && e != nil && (best == nil || e.Source > best.Source) {
					best = e
				}
			}
			return best
		}, prefixes)
	})
	sc.Count(runs, "histories")
	sc.Say("the kernel's rows equal the model's")
}

// check compares the kernel with what was said, by a reckoning of its own: prefix by prefix, no memory.
func check(t *rapid.T, k *fake, policy map[netip.Prefix]model.IdentityID, entry func(netip.Prefix) *model.IPEntry, all []netip.Prefix) {
	for _, p := range all {
		e, id := entry(p), policy[p]
		var want dpmaps.IP
		there := e != nil || id != 0
		way := e
		if way == nil {
			around := slices.Clone(all)
			slices.SortFunc(around, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
			for _, q := range around {
				if way == nil && q.Bits() < p.Bits() && q.Contains(p.Addr()) {
					way = entry(q)
				}
			}
		}
		if e == nil && way != nil && way.Identity != 0 && way.Identity != 9 {
			there = false // a range of which it is known whose it is
		}
		if way != nil {
			want = dpmaps.IP{NoMasq: way.NoMasq, LocalCIDR: way.LocalCIDR, Tunnel: way.Tunnel, Overlay: way.Tunnel.IsValid()}
		}
		if e != nil {
			want.Identity = e.Identity
		}
		if id != 0 && (e == nil || e.Identity == 0 || e.Identity == 9) {
			want.Identity = id
		}
		got, ok := k.rows[p]
		if want.Identity == 300 { // unknown: absent, or known to be nobody
			want.Identity = 0
			if !ok {
				continue
			}
		}
		if ok != there || there && got != want {
			t.Fatalf("%s: %+v (%v), want %+v (%v)", p, got, ok, want, there)
		}
	}
}

// TestCase18AddressChurn: an address comes and goes under other identities, told by two sources whose events come in any order;
// each time the kernel's own maps say what the model says, and an address that changes hands starts an epoch.
func TestCase18AddressChurn(t *testing.T) {
	n := score.Size(2000, 200000)
	s := score.Start(t, "18", "the same IP deleted and created, events of two sources reordered")
	r := s.Rand()
	s.Count(n, "events")
	m, err := dpmaps.Open(dpmaps.Config{Dir: pintest.Dir(t), CT: 4096, NAT: 4096, Ring: 4096}, dpmaps.Deps{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer func() { must(t, m.Close()) }()
	must(t, m.PutClasses(map[model.Peer]model.ClassID{{Identity: 9}: 1, {Identity: 100}: 2, {Identity: 101}: 3, {Identity: 102}: 4}))
	c := newCache(t, m)
	must(t, c.Upsert(pfx("10.0.0.0/24"), model.IPEntry{Identity: 9, Source: model.IPSourceKVStore}))
	p := pfx("10.0.0.7/32")
	sources := []model.IPSource{model.IPSourceLocal, model.IPSourceKVStore} // the stronger first
	said := map[model.IPSource]model.IdentityID{}                           // the model: what each said last, 0 for nothing
	now := model.IdentityID(9)
	moved := uint32(0)
	for i := range n {
		from := sources[r.IntN(len(sources))]
		if said[from] = model.IdentityID(99 + r.IntN(4)); said[from] == 99 {
			said[from] = 0
			must(t, c.Delete(p, from))
		} else {
			must(t, c.Upsert(p, model.IPEntry{Identity: said[from], Source: from}))
		}
		want := model.IdentityID(9)
		for _, source := range sources {
			if said[source] != 0 {
				want = said[source]
				break
			}
		}
		if now != want && now != 9 {
			moved++
		}
		now = want
		if ip, ok, err := m.LookupIP(p.Addr()); err != nil || !ok || ip.Identity != want {
			t.Fatalf("event %d: %+v %v %v, want identity %d", i, ip, ok, err, want)
		}
	}
	epoch, err := m.Epoch()
	if err != nil || uint32(epoch) < moved {
		t.Errorf("epoch %d after %d changes of hands: %v", epoch, moved, err)
	}
	s.Say("the kernel's rows equal the model's after each; %d changes of hands, each with an epoch", moved)
}
