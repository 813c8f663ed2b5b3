package monitor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/model"
)

func drop() model.Event {
	return model.Event{Type: model.EventDrop, Code: 133, Flags: model.EventIngress | model.EventL4, Proto: 6, TCPFlags: 2,
		SrcPort: 40000, DstPort: 80, SrcIdentity: 300, DstIdentity: 301, DstEndpoint: 7, Rule: 999, IfIndex: 4,
		Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("fd00::1")}
}

func link(uint32) string { return "hy0" }

func TestSummary(t *testing.T) {
	e := drop()
	want := "xx drop (Policy denied) to endpoint 7, ifindex hy0, line 0, rule 999, identity 300->301: 10.0.0.2:40000 -> [fd00::1]:80 tcp SYN"
	if got := Summary(&e, link); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.Type, e.Code, e.Reason = model.EventPolicyVerdict, model.VerdictAllow, 2
	want = "Policy verdict log: local EP ID 7, remote ID 300, proto 6, ingress, action allow, match L3-L4, rule 999, 10.0.0.2:40000 -> [fd00::1]:80 tcp SYN"
	if got := Summary(&e, link); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.Type, e.Code, e.Reason, e.Proto, e.SrcPort, e.DstPort = model.EventTrace, 4, 1, 1, 8, 0
	want = "-> to-overlay 7, identity 300->301 state new ifindex hy0: 10.0.0.2 -> fd00::1 icmp type 8 code 0"
	if got := Summary(&e, link); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// No event, however odd, may crash the reader.
func FuzzFormat(f *testing.F) {
	f.Add(uint8(1), uint8(133), uint8(0), uint8(0xff), uint8(6))
	f.Fuzz(func(t *testing.T, typ, code, reason, flags, proto uint8) {
		e := model.Event{Type: typ, Code: code, Reason: reason, Flags: model.EventFlags(flags), Proto: proto}
		if Summary(&e, link) == "" || len(Fields(&e, link)) == 0 {
			t.Error("nothing to show")
		}
	})
}

func TestHub(t *testing.T) {
	var h Hub
	match, err := Match([]string{"drop"}, []uint32{7}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := h.Listen(match)
	e := drop()
	for range queue + 10 {
		h.Send(&e)
	}
	h.Lost(3)
	other := drop()
	other.DstEndpoint = 8
	h.Send(&other)
	if n := len(l.Events()); n != queue {
		t.Errorf("%d events queued, want %d", n, queue)
	}
	if n := l.TakeLost(); n != 13 {
		t.Errorf("%d events lost, want 13", n)
	}
	if n := l.TakeLost(); n != 0 {
		t.Errorf("losses counted twice: %d", n)
	}
	l.Close()
	h.Lost(1)
	if n := l.TakeLost(); n != 0 {
		t.Error("a closed listener still listens")
	}
}

func TestMatch(t *testing.T) {
	if _, err := Match([]string{"l8"}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "policy-verdict") {
		t.Errorf("unknown type: %v", err)
	}
	e := drop()
	for _, tc := range []struct {
		related, from, to []uint32
		want              bool
	}{{nil, nil, nil, true}, {[]uint32{7}, nil, nil, true}, {[]uint32{1}, nil, nil, false}, {nil, []uint32{7}, nil, false}, {nil, nil, []uint32{7, 9}, true}} {
		m, err := Match(nil, tc.related, tc.from, tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if m(&e) != tc.want {
			t.Errorf("%+v: got %v", tc, !tc.want)
		}
	}
}
