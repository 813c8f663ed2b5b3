package service

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// many makes a rig with so many services, each with three backends.
func many(b *testing.B, services int, tables bool) *rig {
	b.Helper()
	r := newRig(b, maps.Config{}, 0)
	for i := range services {
		a := netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)})
		s := balance(front(a, 80, udp), model.ServiceID(i+1), 1, 2, 3)
		s.Slots[0].Port = uint16(1000 + i%50000) // each its own set
		if tables {
			for j := range 16381 {
				s.Table = append(s.Table, uint16(j%3))
			}
		}
		r.put(s)
	}
	return r
}

// connects measures the connect of a datagram socket, of which the kernel's own part is smallest: p50 in ns.
func connects(b *testing.B, r *rig, to netip.AddrPort) {
	b.Helper()
	err := r.ns.Do(func() error {
		s, err := open(0, udp, false)
		if err != nil {
			return err
		}
		defer s.close()
		at := s.addr(to)
		took := make([]time.Duration, 0, 1<<16)
		for b.Loop() {
			began := time.Now()
			if err := unix.Connect(s.fd, at); err != nil {
				return err
			}
			if len(took) < cap(took) {
				took = append(took, time.Since(began))
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConnect compares the connect of a socket without programs, to what is no service with them, and to services:
// the first and the last of N.
func BenchmarkConnect(b *testing.B) {
	direct := netip.AddrPortFrom(place(0, 1), 8080)
	b.Run("no programs", func(b *testing.B) {
		r := newRig(b, maps.Config{}, 0)
		r.detach()
		connects(b, r, direct)
	})
	for _, n := range []int{1, 1000, 30000} {
		b.Run(fmt.Sprintf("direct beside %d", n), func(b *testing.B) { connects(b, many(b, n, false), direct) })
		b.Run(fmt.Sprintf("service of %d", n), func(b *testing.B) {
			last := netip.AddrFrom4([4]byte{172, 20, byte((n - 1) >> 8), byte(n - 1)})
			connects(b, many(b, n, false), netip.AddrPortFrom(last, 80))
		})
	}
	b.Run("Maglev", func(b *testing.B) {
		connects(b, many(b, 1, true), netip.AddrPortFrom(netip.MustParseAddr("172.20.0.0"), 80))
	})
}

// BenchmarkUpdate is a change of the backends of one service among N.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1, 30000} {
		b.Run(fmt.Sprintf("of %d", n), func(b *testing.B) {
			r := many(b, n, false)
			f := front(netip.MustParseAddr("172.20.0.0"), 80, udp)
			i := 0
			for b.Loop() {
				i++
				s := balance(f, 1, 1, 2)
				s.Slots[0].Port = uint16(i)%60000 + 1
				if err := r.Look(b.Context()); err != nil {
					b.Fatal(err)
				}
				r.put(s)
			}
		})
	}
}

// BenchmarkLoad brings 50,000 services from a table into force, from nothing, in turns as the target does and row by row: CPU
// time of both, and what part of the latter the former is.
func BenchmarkLoad(b *testing.B) {
	const services = 50000
	rows := table.New[model.Frontend, model.Balance]("services", table.Frontend)
	rows.Update(func(x *table.Txn[model.Frontend, model.Balance]) {
		for i := range services {
			s := balance(front(netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)}), 80, tcp), model.ServiceID(i+1), 1, 2, 3)
			s.Slots[0].Port = uint16(1000 + i)
			x.Set(s.Frontend, s)
		}
	})
	rows.SetComplete()
	type target = table.Target[model.Frontend, model.Balance]
	load := func(of func(*Target) target) time.Duration {
		r := newRig(b, maps.Config{}, 0)
		defer r.detach()
		sync := table.NewReconciler(table.Config{}, rows, of(r.Target))
		runtime.GC()
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan struct{})
		began := spent(b)
		go func() { defer close(done); _ = sync.Run(ctx) }()
		for sync.Revision() < rows.Snapshot().Revision() { // it waits for the round that is under way
			time.Sleep(time.Millisecond)
		}
		took := spent(b) - began
		cancel()
		<-done
		if have, err := r.m.Frontends(); err != nil || len(have) != services || sync.Err() != nil {
			b.Fatalf("%d frontends: %v, %v", len(have), err, sync.Err())
		}
		must(b, r.m.Close())
		return took
	}
	var together, singly time.Duration
	for b.Loop() {
		together += load(func(t *Target) target { return t })
		singly += load(func(t *Target) target { return struct{ target }{t} }) // nothing but Update, Delete and Prune
	}
	b.ReportMetric(float64(together.Milliseconds())/float64(b.N), "together-cpu-ms")
	b.ReportMetric(float64(singly.Milliseconds())/float64(b.N), "singly-cpu-ms")
	b.ReportMetric(together.Seconds()/singly.Seconds(), "ratio")
}

// spent is the CPU time of this process.
func spent(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
