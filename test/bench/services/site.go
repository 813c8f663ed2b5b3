package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/internal/client"
	"github.com/hypha-net/hypha/internal/lab"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/meter"
	"github.com/hypha-net/hypha/test/e2e/cluster"
)

// The services: the port of those that are measured, and where the server listens. A workload of Hypha's has one address, so its
// two endpoints are two ports.
const (
	port     = arm.PortRR
	portNext = arm.PortCRR
)

var serverPorts = []uint16{port, portNext}

// newSince is the number of the first service that comes later than all the others.
const newSince = 100_000

// serviceOf is the i-th service; real ones have endpoints that exist.
func serviceOf(i int, real bool) arm.Service {
	s := arm.NewService(i)
	if real {
		s.Ports, s.Endpoints = []uint16{port}, arm.Endpoints
	}
	return s
}

// marks are the first, the middle and the last of n services.
func marks(n int) [3]int { return [3]int{0, n / 2, n - 1} }

// reality are the services that are measured at any of the sizes.
func reality(sizes []int) map[int]bool {
	out := map[int]bool{}
	for _, n := range sizes {
		for _, i := range marks(n) {
			out[i] = true
		}
	}
	return out
}

// A site is an arm with services.
type site interface {
	Name() string
	About() string
	ends() arm.Ends
	server() netip.Addr // its own address
	cgroup() string     // of the client's processes, "": any
	// grow brings it from fewer services to n.
	grow(ctx context.Context, n int) error
	// adding prepares one more service: event brings it, arrived says whether its row is in the kernel; nil: there is no
	// telling.
	adding(ctx context.Context, s arm.Service) (event func() error, arrived func() (bool, error), err error)
	close() error
}

// place is what a client connects to at a service.
func place(s arm.Service) netip.AddrPort { return netip.AddrPortFrom(s.Addr, port) }

// plain is the kernel's routing alone.
type plain struct {
	arm.Arm
	at arm.Ends
}

func (s *plain) ends() arm.Ends     { return s.at }
func (s *plain) server() netip.Addr { return s.at.Target }
func (s *plain) cgroup() string     { return "" }
func (s *plain) close() error       { return s.Teardown() }

func (s *plain) grow(ctx context.Context, _ int) (err error) {
	if s.at.Client == nil {
		s.at, err = s.Setup(ctx)
	}
	return err
}

func (s *plain) adding(context.Context, arm.Service) (func() error, func() (bool, error), error) {
	return nil, nil, errors.New("plain routing has no services")
}

// proxied is one of kube-proxy's shapes.
type proxied struct {
	*arm.Proxied
	real map[int]bool
	at   arm.Ends
	have int
}

func (s *proxied) ends() arm.Ends     { return s.at }
func (s *proxied) server() netip.Addr { return arm.Endpoints[0] }
func (s *proxied) cgroup() string     { return "" }
func (s *proxied) close() error       { return s.Teardown() }

func (s *proxied) grow(ctx context.Context, n int) (err error) {
	if s.at.Client == nil {
		if s.at, err = s.Setup(ctx); err != nil {
			return err
		}
	}
	var more []arm.Service
	for i := s.have; i < n; i++ {
		more = append(more, serviceOf(i, s.real[i]))
	}
	s.have = n
	return s.Grow(more)
}

func (s *proxied) adding(_ context.Context, v arm.Service) (func() error, func() (bool, error), error) {
	return s.Adding(v), nil, nil
}

// clustered is an arm of Hypha.
type clustered struct {
	arm.Arm
	real  map[int]bool
	at    arm.Ends
	group string
	rows  *ebpf.Map // lb_frontend_v1
	have  int
}

func (s *clustered) ends() arm.Ends     { return s.at }
func (s *clustered) server() netip.Addr { return s.at.Target }
func (s *clustered) cgroup() string     { return s.group }

func (s *clustered) close() error {
	var err error
	if s.rows != nil {
		err = s.rows.Close()
	}
	return errors.Join(err, s.Teardown())
}

func (s *clustered) node() *cluster.Node { return s.at.Cluster.Nodes[0] }

func (s *clustered) pin() string { return s.node().Paths.Maps() + "/lb_frontend_v1" }

func (s *clustered) grow(ctx context.Context, n int) (err error) {
	if s.at.Client == nil {
		if s.at, err = s.Setup(ctx); err != nil {
			return err
		}
		if s.group, err = lab.Cgroup(s.node().Paths); err != nil {
			return err
		}
		if s.rows, err = ebpf.LoadPinnedMap(s.pin(), &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := s.have; i < n; i++ {
		g.Go(func() error { return s.insist(gctx, serviceOf(i, s.real[i]), s.real[i]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.have = n
	return meter.Reach(ctx, n, 50*time.Millisecond, func() (int, error) {
		return meter.Rows[maps.LBFrontendKey, maps.LBFrontend](s.pin())
	})
}

// insist is update again while the store does not answer: tens of thousands of writes to disk, of which one may take its time.
func (s *clustered) insist(ctx context.Context, v arm.Service, real bool) (err error) {
	for range 10 {
		if err = s.update(ctx, v, real); connect.CodeOf(err) != connect.CodeUnavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
	return err
}

// update stores a service; real ones lead to the server.
func (s *clustered) update(ctx context.Context, v arm.Service, real bool) error {
	m := &agentv1.Service{Id: uint32(v.Number + 1), Name: v.Name, Namespace: "default", Frontend: &agentv1.Frontend{Ip: v.Addr.String(), Port: uint32(v.Ports[0])}}
	for i, a := range v.Endpoints {
		b := &agentv1.Backend{Ip: a.String(), Port: uint32(v.Ports[0])}
		if real {
			b.Ip, b.Port = s.at.Target.String(), uint32(serverPorts[i])
		}
		m.Backends = append(m.Backends, b)
	}
	if _, err := s.node().Admin().UpdateService(ctx, connect.NewRequest(&agentv1.UpdateServiceRequest{Service: m})); err != nil {
		return connect.NewError(connect.CodeOf(err), fmt.Errorf("store service %s: %s", v.Name, client.Message(err)))
	}
	return nil
}

func (s *clustered) adding(ctx context.Context, v arm.Service) (func() error, func() (bool, error), error) {
	key := maps.LBFrontendKey{Addr: maps.AddrFrom(v.Addr), Port: uint16(v.Ports[0])<<8 | uint16(v.Ports[0])>>8, Proto: unix.IPPROTO_TCP}
	event := func() error { return s.update(ctx, v, true) }
	arrived := func() (bool, error) {
		var row maps.LBFrontend
		err := s.rows.Lookup(key, &row)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	return event, arrived, nil
}

// child starts this program as a load process where a site's client is. stdin and stdout are the caller's to set.
func child(ctx context.Context, s site, args []string, cpus []int, prepare func(*exec.Cmd) error) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the benchmark's own binary: %w", err)
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{"load"}, args...)...)
	if err := prepare(cmd); err != nil {
		return nil, err
	}
	if s.cgroup() != "" {
		dir, err := os.Open(s.cgroup())
		if err != nil {
			return nil, fmt.Errorf("enter control group: %w", err)
		}
		defer func() { _ = dir.Close() }()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := s.ends().Client.StartOn(cmd, cpus); err != nil {
		return nil, fmt.Errorf("start load on %s: %w", s.Name(), err)
	}
	return cmd, nil
}

// newSites makes the arms, without services. The first is the base of those that translate by rules.
func newSites(bin string, sizes []int) (out []site) {
	real := reality(sizes)
	for _, a := range arm.Kernel() {
		if a.Name() == baseName {
			out = append(out, &plain{Arm: a})
		}
	}
	for _, a := range arm.KubeProxyBare() {
		out = append(out, &proxied{Proxied: a, real: real})
	}
	for _, a := range arm.HyphaServices(bin) {
		out = append(out, &clustered{Arm: a, real: real})
	}
	return out
}
