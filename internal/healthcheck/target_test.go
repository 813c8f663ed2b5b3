package healthcheck

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

var _ table.Target[uint16, model.HealthCheck] = (*Target)(nil)

const port = 31000

var nodeAddrs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// rig is a target in a network namespace that has the node's addresses.
type rig struct {
	*Target
	t  *testing.T
	ns *netns.NS
}

func newRig(t *testing.T) *rig {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	ns := netns.New(t, "node")
	ns.Addr("lo", "192.0.2.1/32", "2001:db8::1/128", "192.0.2.9/32")
	eventually(t, "the kernel knows the way to its new address", func() bool {
		c, err := ns.DialContext(t.Context(), "udp", netip.AddrPortFrom(nodeAddrs[1], port).String())
		return err == nil && c.Close() == nil
	})
	r := &rig{Target: New(Config{Addrs: nodeAddrs}, Deps{Log: slog.New(slog.DiscardHandler)}), t: t, ns: ns}
	t.Cleanup(func() {
		r.Close()
		goleak.VerifyNone(t, leaks)
	})
	return r
}

func (r *rig) update(port uint16, row model.HealthCheck) error {
	return r.ns.Do(func() error { return r.Update(context.Background(), port, row) })
}

// ask asks as a load balancer does: a connection of its own for each question.
func (r *rig) ask(at netip.Addr, path string) (code int, header http.Header, body string, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: r.ns.DialContext}}
	resp, err := client.Get("http://" + netip.AddrPortFrom(at, port).String() + path)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// The answers are those that load balancers know from kube-proxy.
func TestAnswer(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ local, code int }{{2, 200}, {0, 503}, {1, 200}} {
		if err := r.update(port, model.HealthCheck{Namespace: "shop", Name: "web", Local: c.local}); err != nil {
			t.Fatal(err)
		}
		for _, a := range nodeAddrs {
			for _, path := range []string{"/", "/healthz"} {
				code, header, body, err := r.ask(a, path)
				if err != nil || code != c.code {
					t.Fatalf("%s%s with %d: %d, %v", a, path, c.local, code, err)
				}
				want := map[string]any{"service": map[string]any{"namespace": "shop", "name": "web"}, "localEndpoints": float64(c.local), "serviceProxyHealthy": true}
				var got map[string]any
				if err := json.Unmarshal([]byte(body), &got); err != nil || !equal(got, want) {
					t.Errorf("%s, %v", body, err)
				}
				for k, v := range map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": strconv.Itoa(c.local)} {
					if header.Get(k) != v {
						t.Errorf("%s: %q, want %q", k, header.Get(k), v)
					}
				}
			}
		}
	}
	if _, _, _, err := r.ask(netip.MustParseAddr("192.0.2.9"), "/"); err == nil {
		t.Error("an answer at an address that is not the node's")
	}
	if err := r.Delete(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	for _, a := range nodeAddrs {
		if code, _, _, err := r.ask(a, "/"); err == nil {
			t.Errorf("%s answers %d though nobody wants it any more", a, code)
		}
	}
	if err := r.Delete(t.Context(), port); err != nil {
		t.Errorf("deleted twice: %v", err)
	}
}

func equal(a, b map[string]any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// A port that somebody else has is told, the other addresses answer meanwhile, and it is served once it is free.
func TestPortTaken(t *testing.T) {
	r := newRig(t)
	l, err := r.ns.Listen("tcp", netip.AddrPortFrom(nodeAddrs[0], port).String())
	if err != nil {
		t.Fatal(err)
	}
	row := model.HealthCheck{Namespace: "shop", Name: "web", Local: 1}
	err = r.update(port, row)
	if err == nil || !strings.Contains(err.Error(), "health-check node port of shop/web: listen tcp 192.0.2.1:31000: bind: address already in use; `ss -tlnp sport = :31000` says by whom") {
		t.Errorf("%v", err)
	}
	if code, _, _, err := r.ask(nodeAddrs[1], "/"); err != nil || code != 200 {
		t.Errorf("the other address: %d, %v", code, err)
	}
	_ = l.Close()
	if err := r.update(port, row); err != nil {
		t.Fatal(err)
	}
	for _, a := range nodeAddrs {
		if code, _, _, err := r.ask(a, "/"); err != nil || code != 200 {
			t.Errorf("%s: %d, %v", a, code, err)
		}
	}
}

// Who says nothing is not waited for, and who comes in crowds takes nothing from other ports.
func TestSlowClients(t *testing.T) {
	r := newRig(t)
	row := model.HealthCheck{Name: "web", Local: 1}
	for _, p := range []uint16{port, port + 1} {
		if err := r.update(p, row); err != nil {
			t.Fatal(err)
		}
	}
	var held []net.Conn
	for range maxConns + 20 {
		c, err := r.ns.DialContext(t.Context(), "tcp", netip.AddrPortFrom(nodeAddrs[0], port+1).String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n")); err != nil { // and no more
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if code, _, _, err := r.ask(nodeAddrs[0], "/"); err != nil || code != 200 {
		t.Errorf("another port: %d, %v", code, err)
	}
	// Those that were accepted are let go, then the rest.
	for i, c := range held {
		if err := c.SetReadDeadline(time.Now().Add(6 * slow)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("connection %d is held for ever: %v", i, err)
		}
	}
}

// Driven by a table, ports come and go with their rows.
func TestReconciled(t *testing.T) {
	r := newRig(t)
	tab := table.New[uint16, model.HealthCheck]("health checks", table.Uint[uint16])
	tab.SetComplete()
	sync := table.NewReconciler(table.Config{RetryMin: time.Millisecond}, tab, inside{r})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sync.Run(ctx) }()
	defer func() { cancel(); <-done }()
	l, err := r.ns.Listen("tcp", netip.AddrPortFrom(nodeAddrs[1], port).String())
	if err != nil {
		t.Fatal(err)
	}
	tab.Set(port, model.HealthCheck{Name: "web", Local: 1})
	eventually(t, "the failure shows", func() bool { return sync.Err() != nil })
	_ = l.Close()
	eventually(t, "served", func() bool {
		code, _, _, err := r.ask(nodeAddrs[1], "/")
		return err == nil && code == 200 && sync.Err() == nil
	})
	tab.Set(port, model.HealthCheck{Name: "web"})
	eventually(t, "nobody left", func() bool { code, _, _, err := r.ask(nodeAddrs[1], "/"); return err == nil && code == 503 })
	tab.Delete(port)
	eventually(t, "gone", func() bool { _, _, _, err := r.ask(nodeAddrs[1], "/"); return err != nil })
}

// inside lets a rig's target listen in the rig's network namespace, whoever calls.
type inside struct{ *rig }

func (i inside) Update(_ context.Context, port uint16, row model.HealthCheck) error {
	return i.update(port, row)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 1000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
