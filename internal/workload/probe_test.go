package workload

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	tns "github.com/hypha-net/hypha/internal/testutil/netns"
)

func TestTry(t *testing.T) {
	web, echo := start(t)
	closed := "127.0.0.1:" + strconv.Itoa(free(t))
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for target, want := range map[string]string{
		"http://" + web: Reached, "connect://" + web: Reached, "tcp://" + echo: Reached, "udp://" + echo: Reached,
		"http://" + closed: Refused, "connect://" + closed: Refused, "udp://" + closed: Refused, "udp://" + silent.LocalAddr().String(): TimedOut,
		"http://nobody.invalid": Failed, "gopher://" + web: Failed, "nonsense": Failed,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		got := Try(ctx, target, "")
		cancel()
		port, err := netip.ParseAddrPort(got.Local)
		spoke := want == Reached || want == Refused || want == TimedOut
		if got.Outcome != want && !(want == Failed && got.Outcome == TimedOut) || spoke != (err == nil && port.Port() != 0) || (got.Error == "") != (want == Reached) {
			t.Errorf("%s: %+v", target, got)
		}
		if strings.HasPrefix(target, "http") && want == Reached && !strings.Contains(got.Answer, got.Local) {
			t.Errorf("%s: the server saw another port: %+v", target, got)
		}
	}
}

// TestOutside: a machine outside that a node is connected with is reached from the node and reaches it, and goes with its process.
func TestOutside(t *testing.T) {
	tns.Require(t)
	node := tns.New(t, "node")
	const device = "hyoutside"
	o := Outside{NS: node.Name() + "-outside", Device: device, Node: []string{"192.0.2.254/24", "2001:db8::fe/64"},
		Addrs: []string{"192.0.2.1/24", "2001:db8::1/64", "192.0.2.2/24", "2001:db8::2/64"}, Ports: []int{80, 443}, Log: slog.New(slog.DiscardHandler)}
	for range 2 { // the second finds no trace of the first
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- node.Do(func() error { return o.Run(ctx) }) }()
		for _, target := range []string{"http://192.0.2.1", "http://192.0.2.2:443", "http://[2001:db8::1]", "udp://192.0.2.1:7777", "icmp://192.0.2.2", "icmp://[2001:db8::1]",
			"syn://192.0.2.1:80"} {
			eventually(t, target, node.Name())
		}
		if p := Try(t.Context(), "icmp://192.0.2.254", o.NS); p.Outcome != Reached {
			t.Errorf("from outside: %+v", p)
		}
		if out, err := node.Output(exec.Command("ip", "netns", "exec", o.NS, "ip", "-6", "route", "get", "2001:db8::fe")); err != nil || !strings.Contains(out, "src 2001:db8::1 ") {
			t.Errorf("it speaks from another address than its first: %s %v", out, err)
		}
		if p := Try(t.Context(), "syn://192.0.2.1:81", node.Name()); p.Outcome != Refused || p.Local == "" {
			t.Errorf("a port that nobody has: %+v", p)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if node.HasLink(device) || netns.Exists(o.NS) {
			t.Error("something is left")
		}
	}
}

func eventually(t *testing.T, target, ns string) {
	t.Helper()
	var last Probe
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		last = Try(ctx, target, ns)
		cancel()
		if last.Outcome == Reached {
			return
		}
	}
	t.Fatalf("%s: %+v", target, last)
}
