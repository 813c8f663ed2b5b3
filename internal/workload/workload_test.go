package workload

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// start serves on free ports of loopback and returns "host:port" of HTTP and echo.
func start(t *testing.T) (web, echo string) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	s, err := New(Config{Name: "p1", Node: "n1", HTTP: free(t), Echo: free(t)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	local := func(a net.Addr) string {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddrPort(a.String()).Port()).String()
	}
	return local(s.http.Addr()), local(s.tcp.Addr())
}

func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestServer(t *testing.T) {
	web, echo := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := new(Client).Get(ctx, web+"/some/path")
	if err != nil || !strings.HasPrefix(got, `p1 on n1: GET "/some/path" from 127.0.0.1:`) {
		t.Errorf("Get: %q %v", got, err)
	}
	for _, network := range []string{"tcp", "udp"} {
		if d, err := new(Client).Echo(ctx, network, echo); err != nil || d <= 0 {
			t.Errorf("Echo %s: %s %v", network, d, err)
		}
	}
	// Every loopback address answers as itself: a connected socket takes no other's datagrams.
	other := netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), netip.MustParseAddrPort(echo).Port()).String()
	for _, addr := range []string{other, "[::1]:" + strconv.Itoa(int(netip.MustParseAddrPort(echo).Port()))} {
		if _, err := new(Client).Echo(ctx, "udp", addr); err != nil {
			t.Errorf("Echo from %s: %v", addr, err)
		}
	}
	if _, err := new(Client).Echo(t.Context(), "tcp", echo); err == nil {
		t.Error("Echo without a deadline")
	}
}

func TestClientErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	closed, err := net.ListenPacket("udp", "127.0.0.1:0") // never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closed.Close() }()
	if _, err := new(Client).Echo(ctx, "udp", closed.LocalAddr().String()); err == nil {
		t.Error("Echo without an answer")
	}
	if _, err := new(Client).Get(ctx, "127.0.0.1:1/"); err == nil {
		t.Error("Get without a server")
	}
}

// A taken port is an error, and leaves no other socket open.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	web := free(t)
	if _, err := New(Config{HTTP: web, Echo: l.Addr().(*net.TCPAddr).Port}, slog.Default()); err == nil {
		t.Fatal("New on a taken port worked")
	}
	again, err := net.Listen("tcp", port(web))
	if err != nil {
		t.Fatalf("HTTP port was left open: %v", err)
	}
	_ = again.Close()
}
