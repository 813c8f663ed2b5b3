package service

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/datapath/loader"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// Every kind of socket reaches the backend, and believes that it talks to the service.
func TestConnect(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1)
	for v := range 2 {
		for i, proto := range []uint8{tcp, udp} {
			r.put(balance(front(vip[v], 80, proto), model.ServiceID(10*v+i+1), 1))
		}
	}
	for _, c := range []struct {
		name        string
		version     int
		proto       uint8
		mapped      bool
		unconnected bool
	}{
		{"TCP", 0, tcp, false, false}, {"TCP over IPv6", 1, tcp, false, false}, {"TCP, mapped", 0, tcp, true, false},
		{"UDP", 0, udp, false, false}, {"UDP over IPv6", 1, udp, false, false}, {"UDP, mapped", 0, udp, true, false},
		{"datagram", 0, udp, false, true}, {"datagram over IPv6", 1, udp, false, true}, {"datagram, mapped", 0, udp, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := netip.AddrPortFrom(vip[c.version], 80)
			var got answer
			must(t, r.ns.Do(func() (err error) {
				if !c.unconnected {
					got, err = call(to, c.proto, c.mapped)
					return err
				}
				s, err := open(c.version, c.proto, c.mapped)
				if err != nil {
					return err
				}
				defer s.close()
				got, err = s.send(to)
				return err
			}))
			if want := (answer{place(c.version, 1).String(), to.String()}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// refused is what a socket is told that no backend can be given to.
func refused() error {
	if k := loader.Probe(); k.Retval {
		return unix.ECONNREFUSED
	}
	return unix.EPERM
}

// Whom nobody serves is refused, told and counted, never routed; whom services do not concern is left alone.
func TestRefuse(t *testing.T) {
	r := newRig(t, maps.Config{}, layout.ConfigEvents)
	r.serve(1)
	for v := range 2 {
		r.put(balance(front(vip[v], 80, tcp), model.ServiceID(v+1), 1),
			balance(front(vip[v], 81, tcp), model.ServiceID(v+3)), balance(front(vip[v], 81, udp), model.ServiceID(v+5)))
	}
	n := uint64(0)
	for v := range 2 {
		for _, c := range []struct {
			name  string
			port  uint16
			proto uint8
		}{{"no backend", 81, tcp}, {"no backend", 81, udp}, {"no such port", 82, tcp}, {"no such port", 82, udp}, {"no such protocol", 80, udp}} {
			to := netip.AddrPortFrom(vip[v], c.port)
			if _, err := r.call(to, c.proto); !errors.Is(err, refused()) {
				t.Errorf("%s, protocol %d, %s: %v", to, c.proto, c.name, err)
			}
			n++
			if c.proto != udp {
				continue
			}
			must(t, r.ns.Do(func() error {
				s, err := open(v, udp, false)
				if err != nil {
					return err
				}
				defer s.close()
				if _, err := s.send(to); !errors.Is(err, refused()) {
					t.Errorf("datagram to %s, %s: %v", to, c.name, err)
				}
				return nil
			}))
			n++
		}
	}
	metrics, err := r.m.Metrics()
	must(t, err)
	if len(metrics) != 1 || metrics[0].Reason != layout.DropNoService || metrics[0].Packets != n {
		t.Errorf("counted: %+v, want %d", metrics, n)
	}
	counts, err := r.m.EventCounts()
	must(t, err)
	told := uint64(0)
	for _, c := range counts {
		told += c.Stored + c.Lost
	}
	if told != n {
		t.Errorf("%d told, want %d", told, n)
	}
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(place(0, 1), 8080), netip.AddrPortFrom(place(1, 1), 8080)} {
		if got, err := r.call(to, tcp); err != nil || got != (answer{to.Addr().String(), to.String()}) {
			t.Errorf("straight to a backend: %+v, %v", got, err)
		}
	}
	// What is no VIP any more is an address as any other: nothing routes to it here.
	r.remove(front(vip[0], 80, tcp))
	r.remove(front(vip[0], 81, udp))
	if _, err := r.call(netip.AddrPortFrom(vip[0], 80), tcp); !errors.Is(err, refused()) {
		t.Errorf("a service that is gone from a VIP: %v", err)
	}
	r.remove(front(vip[0], 81, tcp))
	if _, err := r.call(netip.AddrPortFrom(vip[0], 81), tcp); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("a port of what is not a VIP any more: %v", err)
	}
	// An address that only some of its ports are redirected from is somebody else's.
	redirect := balance(front(vip[0], 80, tcp), 1, 1)
	redirect.Type = model.ServiceLocalRedirect
	r.put(redirect)
	if _, err := r.call(netip.AddrPortFrom(vip[0], 80), tcp); err != nil {
		t.Errorf("a port that is redirected: %v", err)
	}
	if _, err := r.call(netip.AddrPortFrom(vip[0], 81), tcp); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("another port of the same address: %v", err)
	}
	r.remove(redirect.Frontend)
	if got, err := r.m.FrontendAddrs(); err != nil || len(got) != 3 { // the node's, and the other VIP
		t.Errorf("rows of addresses: %v, %v", got, err)
	}
}

// pod makes a network namespace behind the node, which routes to the node's addresses.
func (r *rig) pod(name string, n int) *netns.NS {
	r.t.Helper()
	pod := netns.New(r.t, name)
	netns.Veth(r.t, r.ns, name, pod, "eth0")
	r.ns.Addr(name, fmt.Sprintf("10.8.%d.1/24", n), fmt.Sprintf("fd08:%d::1/64", n))
	pod.Addr("eth0", fmt.Sprintf("10.8.%d.2/24", n), fmt.Sprintf("fd08:%d::2/64", n))
	pod.Route("default", fmt.Sprintf("10.8.%d.1", n))
	pod.Route("::/0", fmt.Sprintf("fd08:%d::1", n))
	return pod
}

// A node port is at every address of the node, for the node's own processes at its loopback too, and nobody of the node may
// listen there.
func TestNodePort(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2)
	const port = 30080
	for v := range 2 {
		internal := balance(front(anyAddr[v], port, tcp), model.ServiceID(v+3), 2)
		internal.Frontend.Scope = model.ScopeInternal
		r.put(balance(front(anyAddr[v], port, tcp), model.ServiceID(v+1), 1), internal, balance(front(anyAddr[v], port, udp), model.ServiceID(v+5), 1))
	}
	pod := r.pod("pod", 1)
	lo := [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for v := range 2 {
		// The frontend for those inside has another backend.
		want := place(v, 2).String()
		for _, to := range []netip.Addr{node[v], lo[v]} {
			if to == lo[v] && !r.host {
				continue
			}
			if got, err := r.call(netip.AddrPortFrom(to, port), tcp); err != nil || got.from != want {
				t.Errorf("%s: %+v, %v; want %s", to, got, err, want)
			}
		}
		must(t, pod.Do(func() error {
			got, err := call(netip.AddrPortFrom(node[v], port), tcp, false)
			if err != nil || got.from != want {
				t.Errorf("%s from a pod: %+v, %v; want %s", node[v], got, err, want)
			}
			return nil
		}))
		// A workload's loopback is its own, and so are its ports.
		at := netip.AddrPortFrom(lo[v], port)
		serveAt(t, pod, at)
		must(t, pod.Do(func() error {
			if got, err := call(at, tcp, false); err != nil || got.from != lo[v].String() {
				t.Errorf("a pod's own loopback: %+v, %v", got, err)
			}
			return nil
		}))
	}
	if !r.host {
		return
	}
	taken := error(unix.EADDRINUSE)
	if !errors.Is(refused(), unix.ECONNREFUSED) {
		taken = unix.EPERM
	}
	for _, at := range []string{"0.0.0.0", "127.0.0.1", "::", "::1"} {
		for _, network := range []string{"tcp", "udp"} {
			addr := netip.AddrPortFrom(netip.MustParseAddr(at), port).String()
			var err error
			if network == "tcp" {
				_, err = r.ns.Listen(network, addr)
			} else {
				_, err = r.ns.ListenPacket(network, addr)
			}
			if !errors.Is(err, taken) {
				t.Errorf("a process of the node listens at %s %s: %v", network, addr, err)
			}
		}
	}
	if l, err := r.ns.Listen("tcp", "0.0.0.0:30081"); err != nil {
		t.Errorf("another port: %v", err)
	} else {
		_ = l.Close()
	}
}

// A frontend of one address of the node, and one of its loopback, are found there and nowhere else, before those of every address.
func TestHostIP(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2, 3)
	const port = 8081
	lo := [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	var rows []model.Balance
	for v := range 2 {
		for i, a := range []netip.Addr{lo[v], node[v], anyAddr[v]} {
			b := balance(front(a, port, tcp), model.ServiceID(10*v+i+1), i+1)
			b.Type = model.ServiceHostPort
			rows = append(rows, b)
		}
	}
	pod := r.pod("pod", 1)
	for _, how := range []string{"together", "one by one"} {
		if how == "together" {
			if errs := r.UpdateAll(t.Context(), rowsFor(rows)); len(errs) != 0 {
				t.Fatal(errs)
			}
		} else {
			for _, b := range rows {
				r.remove(b.Frontend)
			}
			r.put(rows...)
		}
		for v := range 2 {
			for i, to := range []netip.Addr{lo[v], node[v]} {
				if to == lo[v] && !r.host {
					continue
				}
				if got, err := r.call(netip.AddrPortFrom(to, port), tcp); err != nil || got.from != place(v, i+1).String() {
					t.Errorf("%s, %s: %+v, %v; want backend %d", how, to, got, err, i+1)
				}
			}
			must(t, pod.Do(func() error {
				if got, err := call(netip.AddrPortFrom(lo[v], port), tcp, false); err == nil {
					t.Errorf("%s: a pod's own loopback leads to %+v", how, got)
				}
				got, err := call(netip.AddrPortFrom(node[v], port), tcp, false)
				if err != nil || got.from != place(v, 2).String() {
					t.Errorf("%s, %s from a pod: %+v, %v", how, node[v], got, err)
				}
				return nil
			}))
			r.remove(front(node[v], port, tcp))
			if got, err := r.call(netip.AddrPortFrom(node[v], port), tcp); err != nil || got.from != place(v, 3).String() {
				t.Errorf("%s: without a frontend of its own, %s: %+v, %v", how, node[v], got, err)
			}
		}
	}
}

// With the option, workloads' sockets are left alone.
func TestHostOnly(t *testing.T) {
	r := newRig(t, maps.Config{}, layout.ConfigSockHost)
	if !r.host {
		t.Skip("this kernel does not tell which network namespace is the node's")
	}
	r.serve(1)
	r.put(balance(front(vip[0], 80, tcp), 1, 1))
	pod := netns.New(t, "pod")
	to := netip.AddrPortFrom(vip[0], 80)
	if got, err := r.call(to, tcp); err != nil || got.from != place(0, 1).String() {
		t.Errorf("the node: %+v, %v", got, err)
	}
	must(t, pod.Do(func() error {
		if got, err := call(to, tcp, false); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("a pod: %+v, %v", got, err)
		}
		return nil
	}))
}

// Changes come into force by one write: with a backend always there, no connect ever fails.
func TestSwap(t *testing.T) {
	r := newRig(t, maps.Config{}, 0)
	r.serve(1, 2, 3)
	f := front(vip[0], 80, tcp)
	r.put(balance(f, 1, 1))
	stop, ended := make(chan struct{}), make(chan error, 2)
	var calls [2]int
	for i := range 2 {
		go func() {
			ended <- r.ns.Do(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					if _, err := call(netip.AddrPortFrom(vip[0], 80), tcp, false); err != nil {
						return fmt.Errorf("call %d: %w", calls[i], err)
					}
					calls[i]++
				}
			})
		}()
	}
	sets := [][]int{{1}, {2, 3}, {3, 1, 2, 2}, {2}, {1, 3, 1}}
	const swaps = 1000
	for i := range swaps {
		must(t, r.Look(t.Context()))
		b := balance(f, 1, sets[i%len(sets)]...)
		if i%3 == 0 {
			for range i % 50 {
				b.Slots = append(b.Slots, backend(f, 1+i%3))
			}
		}
		r.put(b)
		time.Sleep(3 * time.Millisecond)
	}
	close(stop)
	for range 2 {
		must(t, <-ended)
	}
	t.Logf("%d swaps, %d calls", swaps, calls[0]+calls[1])
	if calls[0] == 0 || calls[1] == 0 {
		t.Error("nobody called")
	}
	time.Sleep(grace + 100*time.Millisecond)
	must(t, r.Look(t.Context()))
	if left, err := r.m.SlotSets(); err != nil || len(left) != 1 {
		t.Errorf("%d sets are left, %v", len(left), err)
	}
}
