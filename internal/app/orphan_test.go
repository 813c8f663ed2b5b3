package app

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/socket"
	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// Places of backends, and services in front of them.
var (
	endOne   = netip.MustParseAddrPort("10.0.0.5:80")
	endTwo   = netip.MustParseAddrPort("10.0.0.6:80")
	vipOne   = netip.MustParseAddrPort("10.96.0.1:80")
	nodePort = netip.MustParseAddrPort("192.0.2.1:30001")
)

// orphanRig is orphans over services and talks that the test fills, with real sockets.
type orphanRig struct {
	*orphans
	t      *testing.T
	ns     *netns.NS
	stored *table.Table[model.ServiceID, state.Service]
	rev    atomic.Uint64 // in force; 0: whatever there is
	looks  atomic.Int32  // at all talks

	mu     sync.Mutex
	told   []model.Talk
	refuse error
}

func newOrphanRig(t *testing.T) *orphanRig {
	t.Helper()
	netns.Require(t)
	if err := socket.Probe(); err != nil {
		t.Skip(err)
	}
	s, stored, nodes := testServices(t)
	r := &orphanRig{t: t, ns: netns.New(t, "node"), stored: stored}
	r.ns.Addr("lo", "10.0.0.5/32", "10.0.0.6/32")
	r.orphans = &orphans{log: discard, services: s, failed: fault.New(discard, "", ""),
		inForce: func() uint64 {
			if rev := r.rev.Load(); rev != 0 {
				return rev
			}
			return s.rows.Snapshot().Revision()
		},
		homes: func() []string { return []string{r.ns.Path(), "/run/netns/hypha-never-there"} },
		talks: func(fn func(model.Talk) bool) error {
			r.looks.Add(1)
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, t := range r.told {
				fn(t)
			}
			return r.refuse
		}}
	nodes.SetComplete()
	return r
}

// start lets services and orphans run until the test ends.
func (r *orphanRig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = r.services.Run(ctx) })
	all.Go(func() { _ = r.orphans.Run(ctx) })
	r.t.Cleanup(func() { cancel(); all.Wait() })
}

// talk makes a connected socket that believes to talk to a service; none with the zero frontend.
func (r *orphanRig) talk(proto uint8, back, front netip.AddrPort) (fd int) {
	r.t.Helper()
	typ := unix.SOCK_DGRAM
	if proto == model.ProtoTCP {
		typ = unix.SOCK_STREAM
		l, err := r.ns.Listen("tcp", back.String())
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = l.Close() })
	}
	var cookie uint64
	r.ns.In(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		r.t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: back.Addr().As4(), Port: int(back.Port())}); err != nil {
			return err
		}
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	if front.IsValid() {
		r.mu.Lock()
		r.told = append(r.told, model.Talk{Socket: cookie, Proto: proto, Back: back, Front: front, Service: 1})
		r.mu.Unlock()
	}
	return fd
}

// ended says whether a socket was. It tells once.
func (r *orphanRig) ended(fd int) bool {
	r.t.Helper()
	_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.ECONNABORTED):
		return true
	case errors.Is(err, unix.EAGAIN):
		return false
	}
	r.t.Fatalf("socket %d: %v", fd, err)
	return false
}

func (r *orphanRig) awaitEnd(what string, fd int) {
	r.t.Helper()
	until(r.t, func() bool { return r.ended(fd) }, func() string { return what + ": not ended" })
}

// spared waits until another socket, of somebody who certainly left, has ended, and sees that these live.
func (r *orphanRig) spared(what string, fds ...int) {
	r.t.Helper()
	probe := netip.MustParseAddrPort("10.0.0.6:9")
	fd := r.talk(model.ProtoUDP, probe, netip.MustParseAddrPort("10.96.9.9:9"))
	r.stored.Set(99, testService(99, "10.96.9.9:9/UDP", probe.String()))
	there := model.Frontend{Addr: netip.MustParseAddr("10.96.9.9"), Port: 9, Proto: model.ProtoUDP}
	until(r.t, func() bool { _, ok := r.services.rows.Get(there); return ok }, func() string { return "service 99 is not known" })
	r.stored.Delete(99)
	r.awaitEnd("the other", fd)
	for _, fd := range fds {
		if r.ended(fd) {
			r.t.Errorf("%s: ended", what)
		}
	}
}

func TestOrphansEnd(t *testing.T) {
	r := newOrphanRig(t)
	both := testService(1, "10.96.0.1:80/UDP", "10.0.0.5:80", "10.0.0.6:80")
	r.stored.Set(1, both)
	r.stored.Set(2, testService(2, "0.0.0.0:30001/UDP", "10.0.0.5:80"))
	// An agent starts: one backend left its service while nobody looked.
	early := r.talk(model.ProtoUDP, netip.MustParseAddrPort("10.0.0.6:7"), vipOne)
	one, two := r.talk(model.ProtoUDP, endOne, vipOne), r.talk(model.ProtoUDP, endTwo, vipOne)
	straight := r.talk(model.ProtoUDP, endOne, netip.AddrPort{})
	port := r.talk(model.ProtoUDP, endOne, nodePort)
	stream := r.talk(model.ProtoTCP, endOne, vipOne)
	r.start()
	time.Sleep(3 * gather)
	if r.looks.Load() != 0 || r.ended(early) {
		t.Error("looked before all services were known")
	}
	r.stored.SetComplete()
	r.awaitEnd("left before the start", early)

	// Not taken out, whatever its state.
	for _, state := range []model.BackendState{model.BackendTerminating, model.BackendQuarantined, model.BackendMaintenance} {
		v := testService(1, "10.96.0.1:80/UDP", "10.0.0.5:80", "10.0.0.6:80")
		v.Backends[0].State = state
		r.stored.Set(1, v)
		r.spared(state.String(), one, two, straight, port, stream)
	}
	// Taken out: those who talk to it through this service, once the kernel does not give it to anybody any more.
	r.rev.Store(r.services.rows.Snapshot().Revision())
	r.stored.Set(1, testService(1, "10.96.0.1:80/UDP", "10.0.0.6:80"))
	time.Sleep(3 * gather)
	if r.ended(one) {
		t.Error("ended while it would have got the same backend again")
	}
	r.rev.Store(0)
	r.awaitEnd("taken out", one)
	r.spared("taken out", two, straight, port, stream)
	// The service under another number is the same service.
	r.stored.Delete(1)
	r.stored.Set(3, testService(3, "10.96.0.1:80/UDP", "10.0.0.6:80"))
	r.spared("renumbered", two)
	// Nothing is left of it.
	r.stored.Delete(3)
	r.awaitEnd("of a service that has gone", two)
	r.spared("of a service that has gone", straight, port, stream)
	r.stored.Set(2, testService(2, "0.0.0.0:30001/UDP"))
	r.awaitEnd("of a node port", port)
	if r.ended(straight) || r.ended(stream) {
		t.Error("ended in the end")
	}
}

// TCP sockets end where that is wanted. What fails is told, and tried again.
func TestOrphansEndTCP(t *testing.T) {
	r := newOrphanRig(t)
	r.tcp = true
	r.stored.Set(1, testService(1, "10.96.0.1:80", "10.0.0.5:80"))
	r.stored.SetComplete()
	stream := r.talk(model.ProtoTCP, endOne, vipOne)
	r.start()
	until(t, func() bool { return r.looks.Load() > 0 }, func() string { return "never looked" })
	broken := errors.New("no map")
	r.mu.Lock()
	r.refuse = broken
	r.mu.Unlock()
	r.stored.Delete(1)
	until(t, func() bool { return errors.Is(r.failed.Err(), broken) }, func() string { return "not told" })
	if r.ended(stream) {
		t.Error("ended though not all talks were read")
	}
	r.mu.Lock()
	r.refuse = nil
	r.mu.Unlock()
	r.awaitEnd("TCP", stream)
	until(t, func() bool { return r.failed.Err() == nil }, func() string { return "still told" })
}
