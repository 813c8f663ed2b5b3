package pod_test

import (
	"testing"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

func TestPolicyRows(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	key := func(class uint32) maps.PolicyKey {
		return maps.PolicyKey{Set: 2, Class: class, Dir: maps.PolicyIngress}
	}
	entry := func(proto uint8, lo, hi uint16, verdict uint8, rule uint32) maps.PolicyEntry {
		return maps.PolicyEntry{Proto: proto, PortLo: lo, PortHi: hi, Verdict: verdict, Rule: rule}
	}
	deny, allow := maps.VerdictDeny, maps.VerdictAllow
	var full []maps.PolicyEntry
	for i := range uint16(maps.PolicyListMax) {
		full = append(full, entry(6, 1000+i, 1000+i, allow, 200+uint32(i)))
	}
	port := uint16(5000)
	for _, c := range []struct {
		name   string
		class  uint32
		def    uint8
		rows   []maps.PolicyEntry
		dport  uint16
		reason uint8
		rule   uint32
		match  uint8
	}{
		{"default denies", 0, deny, nil, 80, maps.DropPolicy, 9, 0},
		{"default allows", 0, allow, nil, 80, 0, 9, 4},
		{"entry denies", 0, allow, []maps.PolicyEntry{entry(6, 80, 80, deny, 5)}, 80, maps.DropPolicyDeny, 5, 3},
		{"first match", 0, deny, []maps.PolicyEntry{entry(17, 80, 80, deny, 4), entry(6, 81, 90, deny, 5), entry(6, 0, 65535, allow, 6), entry(6, 80, 80, deny, 7)}, 80, 0, 6, 6},
		{"range, low end", 0, deny, []maps.PolicyEntry{entry(6, 80, 90, allow, 5)}, 80, 0, 5, 3},
		{"range, high end", 0, deny, []maps.PolicyEntry{entry(6, 80, 90, allow, 5)}, 90, 0, 5, 3},
		{"above the range", 0, deny, []maps.PolicyEntry{entry(6, 80, 90, allow, 5)}, 91, maps.DropPolicy, 9, 0},
		{"any protocol", 0, deny, []maps.PolicyEntry{entry(0, 0, 0, allow, 5)}, 91, 0, 5, 4},
		{"class of its own", 11, deny, []maps.PolicyEntry{entry(6, 80, 80, allow, 5)}, 80, 0, 5, 2},
		{"last of a full list", 11, deny, full, 1015, 0, 215, 2},
		{"behind a full list", 11, deny, full, 1016, maps.DropPolicy, 9, 0},
		{"proxy there is not", 0, deny, []maps.PolicyEntry{entry(6, 80, 80, maps.VerdictRedirect, 5)}, 80, maps.DropProxy, 5, 3},
		{"authentication there is not", 0, deny, []maps.PolicyEntry{entry(6, 80, 80, maps.VerdictAuth, 5)}, 80, maps.DropAuth, 5, 3},
	} {
		_ = w.Maps.PolicyV1.Delete(key(11))
		w.PutPolicy(2, c.class, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: c.def, DefaultRule: 9}, c.rows...)
		port++
		verdict, _ := w.MustRun(pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(w.Pod2.V4, port, c.dport).TCP("S"))
		evs := w.Events()
		if (verdict == bpftest.Redirect) != (c.reason == 0) || len(evs) != 3 {
			t.Fatalf("%s: verdict %d, events %+v", c.name, verdict, evs)
		}
		if evs[1].Rule != c.rule || evs[1].Reason != c.match {
			t.Errorf("%s: rule %d, match %d; want %d, %d", c.name, evs[1].Rule, evs[1].Reason, c.rule, c.match)
		}
		if c.reason != 0 && (evs[2].Type != maps.EventDrop || evs[2].Code != c.reason || evs[2].Rule != c.rule || evs[2].Line == 0 || maps.SourceFile(evs[2].File) == "") {
			t.Errorf("%s: dropped as %+v", c.name, evs[2])
		}
	}
}

func TestPolicyOverflow(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	w.PutPolicy(2, 11, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 9, Flags: maps.PolicyOverflow})
	put := func(proto uint8, port uint16, bits uint32, verdict uint8, rule uint32) {
		w.Put(w.Maps.PolicyOverflowV1, maps.PolicyOverflowKey{Prefixlen: maps.PolicyOverflowAnyPort + bits, Set: 2, Class: 11,
			Dir: uint8(maps.PolicyIngress), Proto: proto, Port: port<<8 | port>>8}, maps.PolicyEntry{Verdict: verdict, Rule: rule, Proto: proto})
	}
	put(6, 0x1f00, 8, maps.VerdictAllow, 1)
	put(6, 0x1f90, 16, maps.VerdictDeny, 2)
	put(17, 53, 16, maps.VerdictAllow, 3)
	put(132, 0, 0, maps.VerdictAllow, 4)
	f := w.Pod1.Flow(w.Pod2.V4, 5000, 0)
	for _, c := range []struct {
		port   uint16
		reason uint8
	}{{0x1f00, 0}, {0x1fff, 0}, {0x1f90, maps.DropPolicyDeny}, {0x2000, maps.DropPolicy}} {
		f.DstPort = c.port
		expect(t, w, "tcp", w.Pod1, f.TCP("S"), bpftest.Redirect, c.reason)
	}
	f.DstPort = 53
	expect(t, w, "udp", w.Pod1, f.UDP(), bpftest.Redirect, 0)
	expect(t, w, "sctp", w.Pod1, f.SCTP(), bpftest.Redirect, 0)
	expect(t, w, "ping", w.Pod1, f.EchoRequest(1), 0, maps.DropPolicy)
	put(0, 0, 16, maps.VerdictAllow, 5)
	expect(t, w, "ping, with a row for all", w.Pod1, f.EchoRequest(1), bpftest.Redirect, 0)
}

// What is missing is no permission.
func TestPolicyFailsClosed(t *testing.T) {
	w := bpftest.NewWorld(t, bpftest.Config{})
	f := w.Pod1.Flow(w.Pod2.V4, 5000, 80)
	if err := w.Maps.ClassV1.Delete(uint32(bpftest.IDPod1)); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "identity without a class", w.Pod1, f.TCP("S"), 0, maps.DropIdentity)
	w.PutState(maps.State{Flags: maps.StateAudit})
	expect(t, w, "the same in audit mode", w.Pod1, f.TCP("S"), 0, maps.DropIdentity)
	w.PutState(maps.State{})
	w.Put(w.Maps.ClassV1, uint32(bpftest.IDPod1), uint32(11))
	if err := w.Maps.PolicyV1.Delete(maps.PolicyKey{Set: 2, Dir: maps.PolicyIngress}); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "set without a row", w.Pod1, f.TCP("S"), 0, maps.DropNoPolicy)
	if n := len(w.Connections()); n != 0 {
		t.Errorf("%d connections on record", n)
	}
}

// A row of an older epoch is asked again, in its own direction, whoever sends.
func TestEpoch(t *testing.T) {
	for v, name := range versions {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			f, back := w.Pod1.Flow(w.Pod2.Addr(v), 5000, 80), w.Pod2.Flow(w.Pod1.Addr(v), 80, 5000)
			w.PutPolicy(2, maps.ClassAny, maps.PolicyEgress, maps.PolicyValue{DefaultRule: 70})
			expect(t, w, "request", w.Pod1, f.TCP("S"), bpftest.Redirect, 0)
			w.PutState(maps.State{Epoch: 1})
			expect(t, w, "reply in the next epoch", w.Pod2, back.TCP("SA"), bpftest.Redirect, 0)
			w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultRule: 71})
			expect(t, w, "before the epoch moves", w.Pod1, f.TCP("A"), bpftest.Redirect, 0)
			w.PutState(maps.State{Epoch: 2})
			for range 2 {
				expect(t, w, "revoked", w.Pod1, f.TCP("A"), 0, maps.DropPolicy)
				expect(t, w, "revoked, the other direction", w.Pod2, back.TCP("A"), 0, maps.DropPolicy)
			}
			w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow, DefaultRule: 72})
			w.PutState(maps.State{Epoch: 3})
			expect(t, w, "allowed again", w.Pod2, back.TCP("A"), bpftest.Redirect, 0)
			for _, c := range w.Connections() {
				if c.Epoch != 3 || c.Rule[0] != 72 || c.SrcIdentity != bpftest.IDPod1 || c.DstIdentity != bpftest.IDPod2 {
					t.Errorf("row %+v", c)
				}
			}
		})
	}
}

func TestAudit(t *testing.T) {
	for name, arm := range map[string]func(*bpftest.World, *maps.PolicyValue){
		"entry":    func(_ *bpftest.World, v *maps.PolicyValue) { v.DefaultVerdict |= maps.VerdictAudit },
		"node":     func(w *bpftest.World, _ *maps.PolicyValue) { w.PutState(maps.State{Flags: maps.StateAudit}) },
		"endpoint": func(w *bpftest.World, _ *maps.PolicyValue) { setAudit(w, w.Pod2) },
	} {
		t.Run(name, func(t *testing.T) {
			w := bpftest.NewWorld(t, bpftest.Config{})
			row := maps.PolicyValue{DefaultRule: 9}
			arm(w, &row)
			w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, row)
			verdict, _ := w.MustRun(pod.FromPod, w.Pod1.Dev, w.Pod1.Flow(w.Pod2.V4, 5000, 80).TCP("S"))
			evs := w.Events()
			if verdict != bpftest.Redirect || len(evs) != 3 {
				t.Fatalf("verdict %d, events %+v", verdict, evs)
			}
			if evs[0].Flags&maps.EventAudit != 0 || evs[1].Flags&maps.EventAudit == 0 || evs[1].Code != maps.VerdictDeny || evs[1].Rule != 9 {
				t.Errorf("verdicts %+v", evs[:2])
			}
			for _, c := range w.Connections() {
				if c.Flags&maps.CTAudit == 0 {
					t.Errorf("row %+v", c)
				}
			}
		})
	}
}

func setAudit(w *bpftest.World, p bpftest.Pod) {
	var row maps.Endpoint
	key := maps.AddrFrom(p.V4)
	if err := w.Maps.EndpointsV1.Lookup(key, &row); err != nil {
		panic(err)
	}
	row.Flags = maps.EndpointAudit
	w.Put(w.Maps.EndpointsV1, key, row)
}
