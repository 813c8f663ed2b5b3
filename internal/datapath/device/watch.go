package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/internal/fault"
	"github.com/hypha-net/hypha/internal/table"
)

// Table is what a Watcher fills: outside devices by index.
type Table = table.Table[uint32, Device]

// NewTable makes an empty table.
func NewTable() *Table { return table.New[uint32, Device]("devices", table.Uint[uint32]) }

// Config says which devices count.
type Config struct {
	Patterns  []string     // names, trailing "+" is a wildcard; none: those with a default route or a node address
	NodeAddrs []netip.Addr // of this node on the underlay
}

// Deps are what a Watcher needs from others.
type Deps struct {
	Log   *slog.Logger
	Table *Table
}

// settle is how long the watcher waits for more changes before it looks, so that a burst costs one look.
const settle = 50 * time.Millisecond

// Watcher keeps a table of the outside devices of one network namespace.
type Watcher struct {
	cfg   Config
	deps  Deps
	h     *netlink.Handle
	sub   *nl.NetlinkSocket
	blind *fault.Fault

	mu       sync.Mutex
	overruns int
	overrun  time.Time // the last
}

// New subscribes to changes in the calling thread's network namespace and fills the table for the first time.
func New(cfg Config, deps Deps) (*Watcher, error) {
	sub, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to device changes: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		sub.Close()
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	w := &Watcher{cfg: cfg, deps: deps, h: h, sub: sub,
		blind: fault.New(deps.Log, "Could not look at the devices; trying again", "Devices are seen again")}
	if err := w.look(); err != nil {
		w.Close()
		return nil, err
	}
	deps.Table.SetComplete()
	return w, nil
}

// Close ends the subscription. It must not be called while Run runs.
func (w *Watcher) Close() {
	w.sub.Close()
	w.h.Close()
}

// Run follows changes until ctx ends and returns nil then.
func (w *Watcher) Run(ctx context.Context) error {
	dirty := make(chan struct{}, 1)
	failed := make(chan error, 1)
	go func() { failed <- w.listen(ctx, dirty) }()
	for {
		select {
		case <-ctx.Done():
			return <-failed
		case err := <-failed:
			return err
		case <-dirty:
		}
		select {
		case <-ctx.Done():
			return <-failed
		case <-time.After(settle):
		}
		err := w.look()
		if w.blind.Note(err); err != nil {
			mark(dirty)
		}
	}
}

// listen marks dirty for every message, and for every message lost: then the kernel says ENOBUFS once and goes on. What
// the messages say does not matter, look reads it afresh.
func (w *Watcher) listen(ctx context.Context, dirty chan<- struct{}) error {
	fd, err := unix.FcntlInt(uintptr(w.sub.GetFd()), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return fmt.Errorf("listen to device changes: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink") // non-blocking: it waits with all the others, without a thread
	defer func() { _ = f.Close() }()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(0, 1)) })()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		_, err := f.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.mu.Lock()
			w.overruns, w.overrun = w.overruns+1, time.Now()
			w.mu.Unlock()
			mark(dirty)
		case err == nil:
			mark(dirty)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("listen to device changes: %w", err)
		}
	}
	return nil
}

// Overruns says how often the kernel had more to tell than the socket could hold, and when at last. All was read anew each time.
func (w *Watcher) Overruns() (n int, last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overruns, w.overrun
}

func mark(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// look brings the table in line with the kernel.
func (w *Watcher) look() error {
	devs, err := read(w.h)
	if err != nil {
		return err
	}
	want := choose(devs, w.cfg.Patterns, w.cfg.NodeAddrs)
	have := w.deps.Table.Snapshot()
	w.deps.Table.Update(func(x *table.Txn[uint32, Device]) {
		for _, d := range want {
			if old, ok := have.Get(uint32(d.Index)); !ok || old != d {
				x.Set(uint32(d.Index), d)
			}
		}
		for k := range have.All() {
			if !slices.ContainsFunc(want, func(d Device) bool { return uint32(d.Index) == k }) {
				x.Delete(k)
			}
		}
	})
	return nil
}
