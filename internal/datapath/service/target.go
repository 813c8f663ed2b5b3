// Package service writes the kernel's rows about services. What a frontend's row says of its slot set is true at every
// moment: sets are immutable, written before a row names them and removed some time after none does.
package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Config says what a target serves.
type Config struct {
	Node []netip.Addr // the node's addresses: frontends of the zero address of their family are reached there
}

// Target is the kernel's side of services, a table.Target for a table of model.Balance.
type Target struct {
	maps *maps.Maps

	mu     sync.Mutex
	slots  *pool[maps.SlotSet]
	ranges *pool[[]netip.Prefix]
	rows   map[model.Frontend]maps.Frontend
	addrs  map[netip.Addr]*address
	claims map[model.Frontend]bool // those that make their address a VIP, in force or not
	swept  error                   // of removing sets, told by Prune: it must not keep changes from coming into force
}

// New takes over what the kernel holds. It writes nothing but what the node's addresses make different.
func New(cfg Config, m *maps.Maps) (*Target, error) {
	t := &Target{maps: m, addrs: map[netip.Addr]*address{}, claims: map[model.Frontend]bool{},
		slots:  newPool(m.PutSlots, m.DeleteSlots, slotsKey),
		ranges: newPool(m.PutRanges, m.DeleteRanges, rangesKey)}
	for _, a := range cfg.Node {
		t.at(a.Unmap()).node = true
	}
	if err := t.adopt(); err != nil {
		return nil, fmt.Errorf("take over services: %w", err)
	}
	return t, nil
}

func (t *Target) adopt() (err error) {
	if t.rows, err = t.maps.Frontends(); err != nil {
		return err
	}
	addrs, err := t.maps.FrontendAddrs()
	if err != nil {
		return err
	}
	slots, err := t.maps.SlotSets()
	if err != nil {
		return err
	}
	ranges, err := t.maps.Ranges()
	if err != nil {
		return err
	}
	slotRefs, rangeRefs, now := map[uint32]int{}, map[uint32]int{}, time.Now()
	for f, row := range t.rows {
		t.at(f.Addr).used++
		t.claim(f, row.Type)
		slotRefs[row.Slots]++
		rangeRefs[row.Ranges]++
		if s := slots[row.Slots]; int(row.Table) <= len(s.Table) { // the kernel's table is rounded up
			s.Table = s.Table[:row.Table]
			slots[row.Slots] = s
		}
	}
	for id, s := range slots {
		t.slots.adopt(id, s, slotRefs[id], now)
	}
	for id, ps := range ranges {
		t.ranges.adopt(id, rangesOf(ps), rangeRefs[id], now)
	}
	for a, row := range addrs {
		x := t.at(a)
		x.there, x.row = true, row
	}
	for a, x := range t.addrs {
		if x.node || x.row.Node {
			err = errors.Join(err, t.settle(a))
		}
	}
	return err
}

// claim notes whether a frontend makes its address a VIP: one that is nothing but the place of services. It does also when
// there is no room for the frontend itself: then it is refused, not routed.
func (t *Target) claim(f model.Frontend, typ model.ServiceType) {
	switch typ {
	case model.ServiceClusterIP, model.ServiceExternalIPs, model.ServiceLoadBalancer:
	default:
		t.release(f)
		return
	}
	x := t.at(f.Addr)
	if f.Addr.IsUnspecified() || x.node || t.claims[f] {
		return
	}
	t.claims[f] = true
	x.vips++
}

func (t *Target) release(f model.Frontend) {
	if !t.claims[f] {
		return
	}
	delete(t.claims, f)
	t.addrs[f.Addr].vips--
}

// Look removes sets that nobody has used for long enough. It is called before each round of changes.
func (t *Target) Look(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.swept = errors.Join(t.slots.sweep(now), t.ranges.sweep(now))
	return nil
}

// Update puts a frontend into force. When it fails, what was in force for the frontend stays so.
func (t *Target) Update(_ context.Context, f model.Frontend, b model.Balance) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.update(f, &b)
}

func (t *Target) update(f model.Frontend, b *model.Balance) error {
	f.Addr = f.Addr.Unmap()
	if err := named(f); err != nil {
		return err
	}
	t.claim(f, b.Type)
	if err := errors.Join(t.settle(f.Addr), check(f, b)); err != nil {
		return err
	}
	have, had := t.rows[f]
	now := time.Now()
	slots, err := t.slots.take(slotsOf(f, b))
	if err != nil {
		return err
	}
	ranges, err := t.ranges.take(rangesOf(b.Ranges))
	if err != nil {
		t.slots.leave(slots, now)
		return err
	}
	if err := t.write(f, rowOf(b, slots, ranges), had); err != nil {
		t.slots.leave(slots, now)
		t.ranges.leave(ranges, now)
		return err
	}
	if had {
		t.slots.leave(have.Slots, now)
		t.ranges.leave(have.Ranges, now)
	}
	return nil
}

// write writes the row of a frontend, the one of its address first: a frontend is found by way of it.
func (t *Target) write(f model.Frontend, row maps.Frontend, had bool) error {
	if have := t.rows[f]; had && have == row {
		return nil
	}
	if !had {
		t.at(f.Addr).used++
	}
	err := t.settle(f.Addr)
	if err == nil {
		err = t.maps.PutFrontend(f, row)
	}
	if err == nil {
		t.rows[f] = row
	} else if !had {
		t.at(f.Addr).used--
		err = errors.Join(err, t.settle(f.Addr))
	}
	return err
}

// Delete takes a frontend out of force.
func (t *Target) Delete(_ context.Context, f model.Frontend) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.Addr = f.Addr.Unmap()
	return t.remove(f)
}

func (t *Target) remove(f model.Frontend) error {
	row, ok := t.rows[f]
	if !ok {
		t.release(f)
		return t.settle(f.Addr)
	}
	if err := t.maps.DeleteFrontend(f); err != nil {
		return err
	}
	t.release(f)
	delete(t.rows, f)
	now := time.Now()
	t.slots.leave(row.Slots, now)
	t.ranges.leave(row.Ranges, now)
	t.at(f.Addr).used--
	return t.settle(f.Addr)
}

// Prune removes what no row asks for: of an earlier agent, or of a write that was cut short.
func (t *Target) Prune(_ context.Context, want map[model.Frontend]model.Balance) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := t.swept
	for f := range t.rows {
		if _, ok := want[f]; !ok {
			failed = errors.Join(failed, t.remove(f))
		}
	}
	for f := range t.claims {
		if _, ok := want[f]; !ok {
			t.release(f)
		}
	}
	for a := range t.addrs {
		failed = errors.Join(failed, t.settle(a))
	}
	return failed
}
