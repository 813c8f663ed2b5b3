package load

import (
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// place is an address of a pair's second namespace.
func place(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port)
}

func TestConnects(t *testing.T) {
	a, b := netns.Pair(t)
	cmd := child(t, ConnectArgs(b.Name(), []uint16{7001, 7002}, []netip.AddrPort{place(7001), place(7002), place(7002)}, 100*time.Millisecond))
	text, err := a.Output(cmd)
	var got Connects
	if err == nil {
		err = json.Unmarshal([]byte(text), &got)
	}
	if err != nil || len(got.To) != 3 || got.CPU <= 0 {
		t.Fatalf("%+v %v", got, err)
	}
	for _, x := range got.To {
		if x.Count < 10 || x.Count != got.To[0].Count || x.P50 <= 0 || x.P99 < x.P50 {
			t.Errorf("%+v", got)
		}
	}
	if got.To[0].Added != 0 {
		t.Errorf("the first place is %s slower than itself", got.To[0].Added)
	}
	if out, err := a.Output(child(t, ConnectArgs(b.Name(), []uint16{7001}, []netip.AddrPort{place(7003)}, time.Millisecond))); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %q %v", out, err)
	}
}

// A probe says when a place appears, and how a steady one fared meanwhile.
func TestProbe(t *testing.T) {
	a, b := netns.Pair(t)
	cmd := child(t, ProbeArgs(b.Name(), []uint16{7001}, place(7001)))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := a.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	dec := json.NewDecoder(out)
	ask := func(to netip.AddrPort, event func()) (f Found) {
		t.Helper()
		if _, err := io.WriteString(in, to.String()+"\n"); err != nil {
			t.Fatal(err)
		}
		event()
		if err := dec.Decode(&f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	began := Now()
	if f := ask(place(7001), func() {}); f.Tries != 0 || f.Failed != 0 || f.At <= began {
		t.Errorf("a place that is there: %+v, asked at %s", f, began)
	}
	var opened time.Duration
	f := ask(place(7009), func() {
		time.Sleep(20 * time.Millisecond)
		opened = Now()
		l, err := b.Listen("tcp", "0.0.0.0:7009")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	})
	if f.Tries == 0 || f.Failed != 0 || f.At <= opened {
		t.Errorf("a place that appeared at %s: %+v", opened, f)
	}
}
