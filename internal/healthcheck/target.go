// Package healthcheck answers at health-check node ports: load balancers in front of the nodes ask there which of them have a
// backend of a service whose external traffic policy is Local. Answers are those of kube-proxy, at any path: 200 with backends,
// 503 without, and how many there are as JSON and as a header.
package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/model"
)

// Config says where to answer.
type Config struct {
	Addrs []netip.Addr // the node's
}

// Deps are what a target needs from others.
type Deps struct {
	Log *slog.Logger
}

// Target is a table.Target: it listens at the ports of its rows, in the network namespace of the thread that calls Update.
type Target struct {
	cfg Config
	log *slog.Logger

	mu    sync.Mutex
	ports map[uint16]*server
}

// New makes one that listens nowhere yet.
func New(cfg Config, deps Deps) *Target {
	return &Target{cfg: cfg, log: deps.Log, ports: map[uint16]*server{}}
}

// Update answers at a port from now on, as the row says. Where it cannot listen at one of the addresses it does at the others, and
// says so.
func (t *Target) Update(ctx context.Context, port uint16, row model.HealthCheck) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.ports[port]
	if s == nil {
		s = newServer(fault.New(t.log.With("port", port), "no answer at a health-check node port", "a health-check node port answers again"))
		t.ports[port] = s
	}
	s.row.Store(&row)
	var failed error
	for _, a := range t.cfg.Addrs {
		if s.listens(a) {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(port))))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("health-check node port of %s: %w", label(row), explain(err, port)))
			continue
		}
		s.serve(a, l)
	}
	s.failed.Note(failed)
	return failed
}

func label(c model.HealthCheck) string {
	if c.Namespace == "" {
		return c.Name
	}
	return c.Namespace + "/" + c.Name
}

func explain(err error, port uint16) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; `ss -tlnp sport = :%d` says by whom", err, port)
	}
	return err
}

// Delete answers nothing at a port any more.
func (t *Target) Delete(_ context.Context, port uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.ports[port]; s != nil {
		s.close()
		delete(t.ports, port)
	}
	return nil
}

// Prune has nothing to do: what an earlier agent listened at ended with it.
func (t *Target) Prune(context.Context, map[uint16]model.HealthCheck) error { return nil }

// Close stops answering.
func (t *Target) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for port, s := range t.ports {
		s.close()
		delete(t.ports, port)
	}
}
