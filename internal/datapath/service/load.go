package service

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/table"
)

// Bounds of what is written together: fewer frontends are not worth it, and more would hold too much memory.
const (
	loadMin   = 32
	loadMost  = 4096     // frontends
	loadBytes = 16 << 20 // of their slots and tables, about
)

// row is a wanted frontend.
type row = table.Row[model.Frontend, model.Balance]

// UpdateAll is Update for many frontends. New ones are written together, those with the rows of each map in one call.
func (t *Target) UpdateAll(_ context.Context, rows []row) map[model.Frontend]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := map[model.Frontend]error{}
	singly := func(rows []row) {
		for i := range rows {
			if err := t.update(rows[i].Key, &rows[i].Row); err != nil {
				errs[rows[i].Key] = err
			}
		}
	}
	for len(rows) > 0 {
		n := t.stretch(rows)
		if n < loadMin {
			n = max(1, n)
			singly(rows[:n])
		} else if t.load(rows[:n]) != nil { // one by one it turns out which do not fit, and the others do
			singly(rows)
			break
		}
		rows = rows[n:]
	}
	return errs
}

// stretch is how many rows from the first on are new and can be written together.
func (t *Target) stretch(rows []row) int {
	bytes := 0
	for n := range rows {
		r := &rows[n].Row
		f := rows[n].Key
		f.Addr = f.Addr.Unmap()
		_, had := t.rows[f]
		if bytes += slotBytes*(len(r.Slots)+len(r.Keep)) + 2*len(r.Table); had || n == loadMost || bytes > loadBytes {
			return n
		}
	}
	return len(rows)
}

const slotBytes = 64 // of a slot and a member, keys included

// batch is new frontends that are to be written together.
type batch struct {
	ids    []uint32 // of fresh sets
	sets   []maps.SlotSet
	addrs  []netip.Addr // whose rows change
	wants  []maps.FrontendAddr
	were   []address // before
	fronts []model.Frontend
	rows   []maps.Frontend
}

// load writes new frontends together: their sets, then their addresses, then the frontends. When it fails, none is in force.
func (t *Target) load(rows []row) error {
	b := &batch{}
	err := t.stage(b, rows)
	if err == nil {
		err = t.maps.PutSlotSets(b.ids, b.sets)
	}
	if err == nil {
		err = t.maps.PutFrontendAddrs(b.addrs, b.wants)
	}
	if err == nil {
		err = t.maps.PutFrontends(b.fronts, b.rows)
	}
	if err != nil {
		return errors.Join(err, t.unload(b))
	}
	for i, f := range b.fronts {
		t.addrs[f.Addr].used++
		t.rows[f] = b.rows[i]
	}
	return nil
}

// stage finds out what is to be written, and takes the sets.
func (t *Target) stage(b *batch, rows []row) error {
	for i := range rows {
		f, v := rows[i].Key, &rows[i].Row
		f.Addr = f.Addr.Unmap()
		if err := errors.Join(named(f), check(f, v)); err != nil {
			return err
		}
		set := slotsOf(f, v)
		slots, fresh := t.slots.stage(set)
		if fresh {
			b.ids, b.sets = append(b.ids, slots), append(b.sets, set)
		}
		ranges, err := t.ranges.take(rangesOf(v.Ranges))
		b.fronts, b.rows = append(b.fronts, f), append(b.rows, rowOf(v, slots, ranges))
		if err != nil {
			return err
		}
		t.claim(f, v.Type)
		if x := t.at(f.Addr); !rowless(f.Addr) && (!x.there || x.row != x.wants()) {
			b.addrs, b.wants, b.were = append(b.addrs, f.Addr), append(b.wants, x.wants()), append(b.were, *x)
			x.there, x.row = true, x.wants()
		}
	}
	return nil
}

// unload takes back what load has written of a batch, and the references that it took.
func (t *Target) unload(b *batch) (failed error) {
	now := time.Now()
	for _, f := range b.fronts {
		failed = errors.Join(failed, t.maps.DeleteFrontend(f))
	}
	for i, a := range b.addrs {
		x, was := t.addrs[a], &b.were[i]
		if x.there, x.row = was.there, was.row; x.there {
			failed = errors.Join(failed, t.maps.PutFrontendAddr(a, x.row))
		} else {
			failed = errors.Join(failed, t.maps.DeleteFrontendAddr(a))
		}
	}
	for i, id := range b.ids {
		failed = errors.Join(failed, t.maps.DeleteSlots(id, b.sets[i]))
		t.slots.discard(id)
	}
	for _, v := range b.rows {
		t.slots.leave(v.Slots, now)
		t.ranges.leave(v.Ranges, now)
	}
	return failed
}
