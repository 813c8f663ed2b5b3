package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	layout "github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/control/service"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/datapath/pintest"
	dpservice "github.com/hypha-net/hypha/internal/datapath/service"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/bench/task"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// Row 5: many services come into force from nothing.

// loadReport is what that took.
type loadReport struct {
	services int
	decided  []spent       // from services to rows
	written  []spent       // from rows to the kernel
	file     time.Duration // from a file that is complete, by the agent and its store, to the kernel
	start    spent         // from the start of an agent whose store has all, to the kernel
}

// spent is time by the clock, and of the process's CPUs.
type spent struct{ wall, cpu time.Duration }

// timed is what fn took. Rubbish of before is not counted.
func timed(fn func() error) (s spent, err error) {
	runtime.GC()
	began, cpu := time.Now(), processTime()
	err = fn()
	return spent{time.Since(began), processTime() - cpu}, err
}

// processTime is the CPU time of this process so far.
func processTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for bad arguments alone
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func loads(ctx context.Context, o options) (r loadReport, err error) {
	r.services = o.load
	for range o.rounds {
		var rows []model.Balance
		decided, err := timed(func() error { rows = decide(o.load); return nil })
		if err != nil {
			return r, err
		}
		written, err := write(ctx, rows)
		if err != nil {
			return r, err
		}
		r.decided, r.written = append(r.decided, decided), append(r.written, written)
	}
	return r, loadAgent(ctx, o, &r)
}

// manyBackends is how many backends each service has.
const manyBackends = 3

// intent is the i-th service.
func intent(i int) model.Service {
	v := arm.NewService(i)
	s := model.Service{ID: model.ServiceID(i + 1), Name: v.Name, Namespace: "default", Frontend: model.Frontend{Addr: v.Addr, Port: v.Ports[0], Proto: unix.IPPROTO_TCP}}
	for k := range manyBackends {
		s.Backends = append(s.Backends, model.Backend{Addr: v.Endpoints[k%2], Port: uint16(8080 + k), Proto: unix.IPPROTO_TCP})
	}
	return s
}

// decide makes the rows of n services.
func decide(n int) []model.Balance {
	self := model.Node{Name: "node", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	p := service.NewPlan(service.Balancer{Self: self}, service.NewFacts(service.PortRange{Low: 30000, High: 32767}, []model.Node{self}))
	for i := range n {
		p.Set(intent(i))
	}
	rows, _ := p.Take()
	return rows
}

// write brings rows from a table into empty maps.
func write(ctx context.Context, all []model.Balance) (s spent, err error) {
	err = task.Run(func(t testing.TB) error {
		m, err := maps.Open(maps.Config{Dir: pintest.Dir(t)}, maps.Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = m.Close() })
		target, err := dpservice.New(dpservice.Config{}, m)
		if err != nil {
			return err
		}
		rows := table.New[model.Frontend, model.Balance]("services", table.Frontend)
		rows.Update(func(x *table.Txn[model.Frontend, model.Balance]) {
			for _, b := range all {
				x.Set(b.Frontend, b)
			}
		})
		rows.SetComplete()
		sync := table.NewReconciler(table.Config{}, rows, target)
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		s, err = timed(func() error {
			go func() { done <- sync.Run(ctx) }()
			for sync.Revision() < rows.Snapshot().Revision() && ctx.Err() == nil { // it waits for the round that is under way
				time.Sleep(time.Millisecond)
			}
			return sync.Err()
		})
		cancel()
		have, ferr := m.Frontends()
		if err := errors.Join(err, ferr, <-done); err != nil {
			return err
		}
		if len(have) != len(all) {
			return fmt.Errorf("%d of %d rows are in the kernel", len(have), len(all))
		}
		return nil
	})
	return s, err
}

// loadAgent gives an agent all services in a file, then lets it start without any in its kernel and its own files.
func loadAgent(ctx context.Context, o options, r *loadReport) (err error) {
	bin, err := lab.FindBinaries(o.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hypha-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "services.json")
	if err := os.WriteFile(file, []byte("[]"), 0o600); err != nil {
		return err
	}
	c, err := cluster.New(ctx, cluster.Config{Bin: bin, Nodes: 1, IPv4: true, IPv6: true, Options: map[string]any{"debug": false, "services-file": file}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	node := c.Nodes[0]
	pin := node.Paths.Maps() + "/lb_frontend_v1"
	loaded := func() error {
		return meter.Reach(ctx, o.load, 20*time.Millisecond, func() (int, error) { return meter.Rows[layout.LBFrontendKey, layout.LBFrontend](pin) })
	}
	text, err := document(o.load)
	if err != nil {
		return err
	}
	whole := file + ".new"
	if err := os.WriteFile(whole, text, 0o600); err != nil {
		return err
	}
	began := time.Now()
	if err := errors.Join(os.Rename(whole, file), loaded()); err != nil {
		return fmt.Errorf("services of a file: %w", err)
	}
	r.file = time.Since(began)

	if err := node.Stop(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(node.Paths.State, "services.json")); err != nil {
		return err
	}
	for _, name := range []string{"lb_frontend_v1", "lb_address_v1", "lb_slot_v1"} {
		if err := os.Remove(filepath.Join(node.Paths.Maps(), name)); err != nil {
			return err
		}
	}
	began = time.Now()
	if err := node.Launch(); err != nil {
		return err
	}
	for { // the agent makes its maps anew
		if _, err := os.Stat(pin); err == nil {
			break
		}
		if err := meter.Wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	if err := loaded(); err != nil {
		return fmt.Errorf("services of the store: %w", err)
	}
	r.start.wall = time.Since(began)
	cpu, err := meter.CPUOf(node.PID())
	r.start.cpu = time.Duration(cpu * float64(time.Second))
	return errors.Join(err, node.WaitReady(ctx, 1))
}

// document is a services file.
func document(n int) ([]byte, error) {
	type entry struct {
		Name     string   `json:"name"`
		Frontend string   `json:"frontend"`
		Backends []string `json:"backends"`
	}
	all := make([]entry, n)
	for i := range all {
		s := intent(i)
		all[i] = entry{Name: s.Name, Frontend: s.Frontend.String()}
		for _, b := range s.Backends {
			all[i].Backends = append(all[i].Backends, netip.AddrPortFrom(b.Addr, b.Port).String())
		}
	}
	return json.Marshal(all)
}
