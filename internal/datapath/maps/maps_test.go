package maps

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	"github.com/hypha-net/hypha/internal/model"
)

// small keeps the tables that the kernel allocates in full small.
func small(dir string) Config { return Config{Dir: dir, CT: 4096, NAT: 4096, Ring: 4096} }

func open(t *testing.T, cfg Config) *Maps {
	t.Helper()
	m, err := Open(cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRowsSurviveReopen(t *testing.T) {
	dir := filepath.Join(pintest.Dir(t), "maps")
	m := open(t, small(dir))
	pod4, pod6 := netip.MustParseAddr("10.0.1.7"), netip.MustParseAddr("fd00::7")
	ep := Endpoint{ID: 7, IfIndex: 42, Identity: 1234, Set: 5, Audit: true, MAC: [6]byte{2, 1}, HostMAC: [6]byte{2, 2}}
	for _, a := range []netip.Addr{pod4, pod6} {
		must(t, m.PutEndpoint(a, ep))
	}
	ips := map[netip.Prefix]IP{
		netip.MustParsePrefix("10.0.1.7/32"):   {Identity: 1234, NoMasq: true},
		netip.MustParsePrefix("10.0.2.0/24"):   {Identity: 2, Overlay: true, Tunnel: netip.MustParseAddr("192.168.0.2")},
		netip.MustParsePrefix("fd00::/120"):    {LocalCIDR: true},
		netip.MustParsePrefix("fd00::9/128"):   {Identity: 6, Node: true, Tunnel: netip.MustParseAddr("fd01::2")},
		netip.MustParsePrefix("0.0.0.0/0"):     {Identity: 9},
		netip.MustParsePrefix("::/0"):          {Identity: 10},
		netip.MustParsePrefix("10.0.2.128/25"): {Identity: 16777217},
	}
	for p, ip := range ips {
		must(t, m.PutIP(p, ip))
	}
	classes := map[model.Peer]model.ClassID{{Identity: 1}: 1, {Identity: 2}: 2, {Identity: 1234}: 3}
	must(t, m.PutClasses(classes))
	must(t, m.PutDevice(3, Device{Masq4: netip.MustParseAddr("192.0.2.1"), MTU: 1500, L3: true}))
	must(t, m.SetAudit(true))
	must(t, m.BumpEpoch())
	rings := ids(t, m.Rings())
	must(t, m.Close())

	m = open(t, small(dir))
	eps, err := m.Endpoints()
	must(t, err)
	gotIPs, err := m.IPs()
	must(t, err)
	gotClasses, err := m.Classes()
	must(t, err)
	devs, err := m.Devices()
	must(t, err)
	epoch, err := m.Epoch()
	must(t, err)
	audit, err := m.Audit()
	must(t, err)
	type all struct {
		Endpoints map[netip.Addr]Endpoint
		IPs       map[netip.Prefix]IP
		Classes   map[model.Peer]model.ClassID
		Devices   map[uint32]Device
		Epoch     uint32
		Audit     bool
		Rings     []ebpf.MapID
	}
	want := all{map[netip.Addr]Endpoint{pod4: ep, pod6: ep}, ips, classes,
		map[uint32]Device{3: {Masq4: netip.MustParseAddr("192.0.2.1"), MTU: 1500, L3: true}}, 2, true, rings}
	got := all{eps, gotIPs, gotClasses, devs, epoch, audit, ids(t, m.Rings())}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Error(d)
	}

	for addr, want := range map[string]model.IdentityID{"10.0.1.7": 1234, "10.0.2.1": 2, "10.0.2.200": 16777217, "8.8.8.8": 9,
		"fd00::9": 6, "fd00::1": 0, "2001:db8::1": 10} {
		ip, ok, err := m.LookupIP(netip.MustParseAddr(addr))
		if err != nil || !ok || ip.Identity != want {
			t.Errorf("%s: identity %d, %v, %v; want %d", addr, ip.Identity, ok, err, want)
		}
	}
}

func ids(t *testing.T, ms []*ebpf.Map) (out []ebpf.MapID) {
	t.Helper()
	for _, m := range ms {
		info, err := m.Info()
		must(t, err)
		id, _ := info.ID()
		out = append(out, id)
	}
	return out
}

func TestDeleteEndpointSparesAnothers(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	a := netip.MustParseAddr("10.0.0.1")
	must(t, m.PutEndpoint(a, Endpoint{ID: 2}))
	must(t, m.DeleteEndpoint(a, 1))
	if _, ok, err := m.Endpoint(a); !ok || err != nil {
		t.Fatalf("endpoint 2's row went with endpoint 1: %v", err)
	}
	must(t, m.DeleteEndpoint(a, 2))
	if _, ok, _ := m.Endpoint(a); ok {
		t.Fatal("row is still there")
	}
	must(t, m.DeleteEndpoint(a, 2))
}

func TestResizeKeepsRows(t *testing.T) {
	cfg := small(pintest.Dir(t))
	m := open(t, cfg)
	const rows = 300
	for i := range rows {
		must(t, m.PutIP(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), IP{Identity: model.IdentityID(i + 1)}))
	}
	ck := layout.CTKey{Proto: 6}
	must(t, put(m.ct, ck, layout.CTValue{Epoch: 1}))
	must(t, m.Close())

	cfg.IPCache, cfg.CT = 1000, 8192
	m = open(t, cfg)
	check := func(m *Maps) {
		t.Helper()
		ips, err := m.IPs()
		must(t, err)
		if len(ips) != rows || m.ipExact.MaxEntries() != 1000 || m.ct.MaxEntries() != 8192 {
			t.Fatalf("%d rows in a map for %d", len(ips), m.ipExact.MaxEntries())
		}
	}
	check(m)
	// What the programs in force write to the old table until they are replaced comes over too.
	late := layout.CTKey{Proto: 17}
	must(t, m.ct.old.Put(&late, &layout.CTValue{Epoch: 2}))
	must(t, m.ct.old.Put(&ck, &layout.CTValue{Epoch: 9}))
	must(t, m.Settle())
	for k, epoch := range map[layout.CTKey]uint32{ck: 1, late: 2} {
		if v, ok, err := get[layout.CTKey, layout.CTValue](m.ct, k); err != nil || !ok || v.Epoch != epoch {
			t.Errorf("connection %+v: %+v %v %v", k, v, ok, err)
		}
	}
	must(t, m.Close())
	m = open(t, cfg) // the pin leads to the new map
	check(m)
	must(t, m.Close())

	cfg.IPCache = 100
	if _, err := Open(cfg, Deps{Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("300 rows went into a map for 100")
	}
	cfg.IPCache = 1000
	check(open(t, cfg)) // the failure changed nothing
}

func TestFullMap(t *testing.T) {
	cfg := small(pintest.Dir(t))
	cfg.Policy = 64
	m := open(t, cfg)
	key := func(i int) model.PolicyKey { return model.PolicyKey{Set: 1, Class: model.ClassID(i)} }
	lists := map[model.PolicyKey]model.PolicyList{}
	for i := range 60 {
		lists[key(i)] = model.PolicyList{DefaultVerdict: layout.VerdictAllow}
	}
	must(t, m.PutLists(lists))

	// A long list that does not fit into the overflow map leaves nothing, not even the value that would point to it.
	var long model.PolicyList
	for i := range 100 {
		long.Entries = append(long.Entries, model.PolicyEntry{Proto: 6, PortLo: uint16(2 * i), PortHi: uint16(2 * i), Verdict: layout.VerdictAllow})
	}
	err := m.PutLists(map[model.PolicyKey]model.PolicyList{key(100): long})
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	got, err := m.Lists()
	must(t, err)
	if _, ok := got[key(100)]; ok || len(got) != 60 {
		t.Errorf("%d lists, the failed one there: %v", len(got), ok)
	}
	if n, err := m.count(m.overflow); n != 0 || err != nil {
		t.Errorf("%d overflow rows left, %v", n, err)
	}
	st, err := m.List()
	must(t, err)
	for _, s := range st {
		if s.Name == Overflow && (s.Errors == 0 || !errors.Is(s.LastErr, ErrFull)) {
			t.Errorf("status does not tell: %+v", s)
		}
	}
	// There is room for shorter lists still.
	must(t, m.PutLists(map[model.PolicyKey]model.PolicyList{key(61): {}}))
}

// Pins that somebody removed come back, and lead to the same rows.
func TestRepin(t *testing.T) {
	dir := pintest.Dir(t)
	m := open(t, small(dir))
	must(t, m.PutIP(netip.MustParsePrefix("10.0.0.1/32"), IP{Identity: 5}))
	for _, name := range []string{IPCacheExact, CT} {
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	for _, want := range []int{2, 0} {
		if n, err := m.Repin(); n != want || err != nil {
			t.Fatalf("%d pinned again, %v; want %d", n, err, want)
		}
	}
	must(t, m.Close())
	rows, err := open(t, small(dir)).IPs()
	must(t, err)
	if len(rows) != 1 {
		t.Errorf("%d rows behind the new pin", len(rows))
	}
}

func TestDumpEveryMap(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	must(t, m.PutEndpoint(netip.MustParseAddr("10.0.0.1"), Endpoint{ID: 1}))
	must(t, m.PutIP(netip.MustParsePrefix("10.0.0.1/32"), IP{Identity: 5, NoMasq: true, Node: true}))
	must(t, m.PutIP(netip.MustParsePrefix("10.0.0.0/8"), IP{Identity: 5}))
	must(t, m.PutWas(netip.MustParseAddr("10.0.0.1"), 6))
	must(t, m.PutClasses(map[model.Peer]model.ClassID{{Identity: 5}: 6, {Identity: 5, Area: 7}: 8}))
	must(t, m.PutAreas(map[netip.Prefix]model.Area{netip.MustParsePrefix("10.0.0.0/8"): {ID: 7}}))
	must(t, m.PutDevice(1, Device{}))
	must(t, m.PutXDPDevice(1)) // the loopback
	must(t, m.PutXDPDevice(1))
	must(t, m.PutLists(map[model.PolicyKey]model.PolicyList{{Set: 1, Class: 2, Dir: model.Egress}: {
		Entries:        []model.PolicyEntry{{Proto: 6, PortLo: 80, PortHi: 90, Verdict: layout.VerdictAllow, Rule: 300}},
		DefaultVerdict: layout.VerdictDeny | layout.VerdictAudit, DefaultRule: 3}}))
	k := layout.CTKey{Proto: 6}
	k.Port[0], k.Port[1] = be16(1000), be16(80)
	must(t, put(m.ct, k, layout.CTValue{Expires: Now() + 60e9, Flags: layout.CTSeenReply}))
	must(t, put(m.nat, layout.NATKey{Proto: 6, Sport: be16(1000)}, layout.NATValue{Sport: be16(10240)}))
	must(t, put(m.frag, layout.FragKey{Proto: 17}, layout.FragValue{Sport: be16(53)}))
	must(t, m.PutFrontend(frontend, Frontend{Service: 1}))
	must(t, m.PutFrontendAddr(frontend.Addr, FrontendAddr{VIP: true}))
	must(t, m.PutSlots(1, slotSet))
	must(t, m.PutRanges(1, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}))
	denied := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("::/0")}
	must(t, m.Deny(denied, nil, denied))
	must(t, put(m.lbAffinity, layout.LBAffinityKey{Service: 1, Kind: layout.LBClientNetns}, layout.LBAffinity{Used: 1}))
	must(t, put(m.lbReverse, layout.LBReverseKey{Socket: 1, Proto: 6}, layout.LBReverse{Service: 1}))
	list, err := m.List()
	must(t, err)
	if len(list) != len(m.byName) {
		t.Fatalf("%d maps listed, want %d", len(list), len(m.byName))
	}
	for _, s := range list {
		n := 0
		must(t, m.Dump(s.Name, func(cols []Column) bool {
			n++
			for _, c := range cols {
				if c.Name == "" {
					t.Errorf("%s: a column without a name", s.Name)
				}
			}
			t.Log(s.Name, cols)
			return true
		}))
		if n == 0 && s.Name != "scratch_v1" && s.Name != Overflow && s.Name != Metrics {
			t.Errorf("%s: no rows", s.Name)
		}
	}
	if err := m.Dump("nonsense", func([]Column) bool { return true }); err == nil {
		t.Error("a map that is not there was dumped")
	}
	if got := fmt.Sprint(list[0].Name, list[0].Entries); got != "area_v11" {
		t.Errorf("first map and its rows: %s", got)
	}
}

func TestSweep(t *testing.T) {
	m := open(t, small(pintest.Dir(t)))
	pod, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("8.8.8.8")
	live := layout.CTKey{Addr: [2]layout.Addr{layout.AddrFrom(peer), layout.AddrFrom(pod)}, Port: [2]uint16{be16(53), be16(1000)}, Proto: 17}
	dead := live
	dead.Port[1] = be16(2000)
	must(t, put(m.ct, live, layout.CTValue{Expires: Now() + 60e9, Flags: layout.CTNAT | layout.CTOrigHigh}))
	must(t, put(m.ct, dead, layout.CTValue{Expires: Now() - 1}))
	nat := func(port uint16, age uint64) {
		created := Now() - age
		own, node, other := layout.AddrFrom(pod), layout.AddrFrom(netip.MustParseAddr("192.0.2.1")), layout.AddrFrom(peer)
		must(t, put(m.nat, layout.NATKey{Src: own, Dst: other, Sport: be16(port), Dport: be16(53), Proto: 17},
			layout.NATValue{Src: node, Dst: other, Sport: be16(port), Dport: be16(53), Created: created}))
		must(t, put(m.nat, layout.NATKey{Src: other, Dst: node, Sport: be16(53), Dport: be16(port), Proto: 17, Dir: layout.NATReverse},
			layout.NATValue{Src: other, Dst: own, Sport: be16(53), Dport: be16(port), Created: created}))
	}
	old := natGrace + 1e9 // a second
	if Now() <= old {
		t.Skip("the machine has not been up for long enough")
	}
	nat(1000, old)
	nat(2000, old)
	nat(3000, 0) // so new that its connection may not be on record yet
	s, err := m.SweepConnections()
	if err != nil || s != (Swept{1, 1}) {
		t.Errorf("connections: %+v, %v", s, err)
	}
	s, err = m.SweepTranslations()
	if err != nil || s != (Swept{4, 2}) {
		t.Errorf("translations: %+v, %v", s, err)
	}
	must(t, m.Connections(func(c Connection) bool {
		if c.Src != netip.AddrPortFrom(pod, 1000) || c.Dst != netip.AddrPortFrom(peer, 53) || !c.NAT {
			t.Errorf("connection %+v", c)
		}
		return true
	}))
	if n, err := m.FlushConnections(); n != 1 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		cfg     Config
		mem     uint64
		ct, nat [2]uint32 // bounds
	}{
		{Config{}, 1 << 30, [2]uint32{ctFloor, ctFloor}, [2]uint32{natFloor, natFloor}},
		{Config{}, 24 << 30, [2]uint32{80_000, 110_000}, [2]uint32{50_000, 70_000}},
		{Config{CT: 1000}, 24 << 30, [2]uint32{1000, 1000}, [2]uint32{50_000, 70_000}},
		{Config{MemRatio: 1}, 1 << 50, [2]uint32{ctCeiling, ctCeiling}, [2]uint32{natCeiling, natCeiling}},
	} {
		all, err := specs()
		must(t, err)
		must(t, resize(all, c.cfg, c.mem, 2))
		if ct, nat := all[CT].MaxEntries, all[NAT].MaxEntries; ct < c.ct[0] || ct > c.ct[1] || nat < c.nat[0] || nat > c.nat[1] {
			t.Errorf("%+v with %d GiB: %d connections, %d translations; want %v, %v", c.cfg, c.mem>>30, ct, nat, c.ct, c.nat)
		}
	}
	for _, bad := range []Config{{Ring: 5000}, {Ring: 1024}, {MemRatio: -1}, {MemRatio: 2}} {
		all, err := specs()
		must(t, err)
		if resize(all, bad, 1<<30, 1) == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
