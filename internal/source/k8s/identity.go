package k8s

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

// Errors of Identities.
var (
	ErrLabels    = errors.New("labels cannot have an identity")
	ErrExhausted = errors.New("all identities of the cluster are in use")
	ErrNotHeld   = errors.New("identity is not held by this node")
)

// Identities is what numbers label sets have in the cluster.
type Identities struct {
	s        *Store
	tab      *table.Table[model.IdentityID, model.Identity]
	min, max model.IdentityID
	moved    chan state.Moved

	mu     sync.Mutex
	held   map[model.IdentityID]*held
	marked map[model.IdentityID]bool            // as one that goes
	known  map[string]map[model.IdentityID]bool // numbers by labels: where one was collected while another node asked, there may be several
}

// held is a number that this node uses.
type held struct {
	labels model.Labels
	n      int
}

func newIdentities(s *Store) *Identities {
	d := &Identities{s: s, tab: table.New[model.IdentityID, model.Identity]("identities", table.Uint[model.IdentityID]),
		min: model.IdentityClusterMin, max: model.IdentityClusterMax, moved: make(chan state.Moved, 4096),
		held: map[model.IdentityID]*held{}, marked: map[model.IdentityID]bool{}, known: map[string]map[model.IdentityID]bool{}}
	if id := model.IdentityID(s.cfg.ClusterID); id > 0 {
		d.min, d.max = id<<16, id<<16+1<<16-1
	}
	return d
}

// Table holds the identities that the cluster has handed out; reserved ones are not in it.
func (d *Identities) Table() *table.Table[model.IdentityID, model.Identity] { return d.tab }

// Moved reports numbers that changed under a user's feet; see state.Moved. Users must replace Old by New everywhere.
func (d *Identities) Moved() <-chan state.Moved { return d.moved }

func (d *Identities) follow() {
	follow(d.s, resource{client: d.s.clients.cilium, name: "ciliumidentities"}, &ciliumv2.CiliumIdentity{}, &sink[*ciliumv2.CiliumIdentity]{
		replace: d.replace, put: d.put, remove: func(o *ciliumv2.CiliumIdentity) { d.remove(o.Name) }})
}

// parse reads one. What could be taken for another set of labels, or for something reserved, is refused.
func (d *Identities) parse(o *ciliumv2.CiliumIdentity) (model.Identity, bool) {
	id, err := strconv.ParseUint(o.Name, 10, 32)
	switch {
	case err != nil || strconv.FormatUint(id, 10) != o.Name:
		err = errors.New("its name is not a number")
	case model.IdentityID(id) < d.min || model.IdentityID(id) > d.max:
		err = errors.New("outside this cluster's range")
	}
	var labels model.Labels
	if err == nil {
		labels, err = labelsOf(o.SecurityLabels)
	}
	if err != nil {
		d.s.log.Warn("CiliumIdentity not used", "name", o.Name, "err", err)
		return model.Identity{}, false
	}
	return model.Identity{ID: model.IdentityID(id), Labels: labels}, true
}

func labelsOf(m map[string]string) (model.Labels, error) {
	ls := make([]model.Label, 0, len(m))
	for k, v := range m {
		source, k, ok := strings.Cut(k, ":")
		if !ok {
			return nil, fmt.Errorf("label %q has no source", k)
		}
		ls = append(ls, model.Label{Source: source, Key: k, Value: v})
	}
	out := model.NewLabels(ls...)
	return out, checkLabels(out)
}

// checkLabels refuses label sets whose canonical form is not theirs alone: with it, somebody could take the identity of others.
func checkLabels(ls model.Labels) error {
	if len(ls) == 0 {
		return fmt.Errorf("%w: there are none", ErrLabels)
	}
	for i, l := range ls {
		text := l.Source + l.Key + l.Value
		switch {
		case l.Source == "" || l.Key == "" || l.Source == model.SourceReserved:
			return fmt.Errorf("%w: %q", ErrLabels, l)
		case strings.ContainsAny(l.Source, ":=;") || strings.ContainsAny(l.Key, "=;") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == ';' || r == '\ufffd' }):
			return fmt.Errorf("%w: %q has characters that no label has", ErrLabels, l)
		case i > 0 && ls[i-1].Source == l.Source && ls[i-1].Key == l.Key:
			return fmt.Errorf("%w: %s:%s is there twice", ErrLabels, l.Source, l.Key)
		}
	}
	return nil
}

func (d *Identities) replace(all []*ciliumv2.CiliumIdentity) {
	rows := make(map[model.IdentityID]model.Identity, len(all))
	d.mu.Lock()
	clear(d.marked)
	d.mu.Unlock()
	for _, o := range all {
		if row, ok := d.parse(o); ok {
			rows[row.ID] = row
			d.noteMark(row.ID, o)
		}
	}
	d.mu.Lock()
	clear(d.known)
	for id, row := range rows {
		d.learn(row.Labels.Key(), id)
	}
	var lost []model.IdentityID
	for id := range d.held {
		if _, ok := rows[id]; !ok {
			lost = append(lost, id)
		}
	}
	d.mu.Unlock()
	replaceAll(d.tab, rows, func(a, b model.Identity) bool { return a.ID == b.ID && a.Labels.Equal(b.Labels) })
	for _, id := range lost {
		d.restore(id)
	}
}

func (d *Identities) put(o *ciliumv2.CiliumIdentity) {
	row, ok := d.parse(o)
	if !ok {
		d.remove(o.Name)
		return
	}
	d.noteMark(row.ID, o)
	if old, had := d.tab.Get(row.ID); had {
		if old.Labels.Equal(row.Labels) {
			return
		}
		d.unlearn(old)
	}
	d.mu.Lock()
	d.learn(row.Labels.Key(), row.ID)
	d.mu.Unlock()
	d.tab.Set(row.ID, row)
}

func (d *Identities) remove(name string) {
	n, err := strconv.ParseUint(name, 10, 32)
	id := model.IdentityID(n)
	old, had := d.tab.Get(id)
	if err != nil || !had {
		return
	}
	d.unlearn(old)
	d.mu.Lock()
	_, used := d.held[id]
	delete(d.marked, id)
	d.mu.Unlock()
	if used { // somebody took it for unused; until it is back its row stays
		d.restore(id)
		return
	}
	d.tab.Delete(id)
}

// learn notes a number; mu is held.
func (d *Identities) learn(labels string, id model.IdentityID) {
	if d.known[labels] == nil {
		d.known[labels] = map[model.IdentityID]bool{}
	}
	d.known[labels][id] = true
}

func (d *Identities) unlearn(row model.Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := row.Labels.Key()
	delete(d.known[k], row.ID)
	if len(d.known[k]) == 0 {
		delete(d.known, k)
	}
}

// AllocateHint returns the number of a label set, in the whole cluster the same, and holds it until as many calls of Release. hint,
// unless 0, is tried first where the labels have no number. isNew says that the number did not exist before. While the API server
// is away, labels whose number is known still get it, others state.ErrUnreachable.
func (d *Identities) AllocateHint(ctx context.Context, labels model.Labels, hint model.IdentityID) (id model.IdentityID, isNew bool, err error) {
	if err := checkLabels(labels); err != nil {
		return 0, false, fmt.Errorf("allocate identity: %w", err)
	}
	id, marked := d.hold(labels, 0)
	if id == 0 {
		if id, isNew, err = d.claim(ctx, labels, hint); err != nil {
			return 0, false, wrap("allocate identity for "+labels.Key(), err)
		}
		id, marked = d.hold(labels, id)
	}
	if marked {
		d.rescue(ctx, id)
	}
	return id, isNew, nil
}

// hold counts a user of the labels' number: the least of those that are known, or the one given. Of one that is marked, the caller has to
// rescue it.
func (d *Identities) hold(labels model.Labels, id model.IdentityID) (_ model.IdentityID, marked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.known[labels.Key()]; id == 0 && len(known) > 0 {
		id = slices.Min(slices.Collect(maps.Keys(known)))
	}
	if id == 0 {
		return 0, false
	}
	if d.held[id] == nil {
		d.held[id] = &held{labels: labels}
	}
	d.held[id].n++
	marked = d.marked[id]
	delete(d.marked, id)
	return id, marked
}

// Release gives back one use of a number. The operator collects numbers that nobody uses.
func (d *Identities) Release(id model.IdentityID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.held[id]
	if h == nil {
		return fmt.Errorf("release identity %d: %w", id, ErrNotHeld)
	}
	if h.n--; h.n == 0 {
		delete(d.held, id)
	}
	return nil
}

// tries is how many numbers are tried before the search gives up. At nine tenths in use it fails once in 10^40.
const tries = 1024

// claim finds a number for labels that have none, or hears that they have. All nodes try the same numbers in the same order.
func (d *Identities) claim(ctx context.Context, labels model.Labels, hint model.IdentityID) (id model.IdentityID, isNew bool, err error) {
	asked := 0
	for try := -1; try < tries; try++ {
		id := hint
		if try >= 0 {
			id = d.candidate(labels, try)
		}
		if id < d.min || id > d.max {
			continue
		}
		if row, taken := d.tab.Get(id); taken && !row.Labels.Equal(labels) {
			continue
		}
		if asked++; asked > 64 { // what is known here says little about what there is
			break
		}
		ok, isNew, err := d.create(ctx, id, labels)
		if err != nil || ok {
			return id, isNew, err
		}
	}
	return 0, false, fmt.Errorf("%w (%d..%d)", ErrExhausted, d.min, d.max)
}

func (d *Identities) candidate(labels model.Labels, try int) model.IdentityID {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(labels.Key()), uint32(try)))
	return d.min + model.IdentityID(binary.BigEndian.Uint64(sum[:])%uint64(d.max-d.min+1))
}

// create makes a number these labels', or finds that it is already. ok is false when it is others'.
func (d *Identities) create(ctx context.Context, id model.IdentityID, labels model.Labels) (ok, isNew bool, err error) {
	o := &ciliumv2.CiliumIdentity{SecurityLabels: make(map[string]string, len(labels))}
	o.Name = strconv.FormatUint(uint64(id), 10)
	o.Labels = map[string]string{}
	for _, l := range labels {
		o.SecurityLabels[l.Source+":"+l.Key] = l.Value
		if l.Source == model.SourceK8s && validation.IsQualifiedName(l.Key) == nil && validation.IsValidLabelValue(l.Value) == nil {
			o.Labels[l.Key] = l.Value
		}
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = d.s.clients.cilium.Post().Resource("ciliumidentities").Body(o).Do(rctx).Error()
	switch {
	case err == nil:
		d.put(o) // the watch is later
		return true, true, nil
	case !apierrors.IsAlreadyExists(err):
		return false, false, err
	}
	var there ciliumv2.CiliumIdentity
	if err := get(ctx, d.s.clients.cilium, "ciliumidentities", "", o.Name, &there); err != nil {
		if apierrors.IsNotFound(err) {
			return false, false, nil // collected this moment: better another one
		}
		return false, false, err
	}
	row, usable := d.parse(&there)
	if !usable || !row.Labels.Equal(labels) {
		return false, false, nil
	}
	d.put(&there)
	return true, false, nil
}

// restore creates a number again that this node uses and somebody deleted. If it is others' by now, its labels get another.
func (d *Identities) restore(id model.IdentityID) {
	d.mu.Lock()
	h := d.held[id]
	d.mu.Unlock()
	if h == nil {
		return
	}
	d.s.run(func(ctx context.Context) {
		retry(ctx, func() error {
			ok, _, err := d.create(ctx, id, h.labels)
			if err != nil || ok {
				return err
			}
			next, _, err := d.claim(ctx, h.labels, 0)
			if err != nil {
				return err
			}
			d.mu.Lock()
			if d.held[id] == h {
				delete(d.held, id)
				if d.held[next] == nil {
					d.held[next] = h
				} else {
					d.held[next].n += h.n
				}
			}
			d.mu.Unlock()
			d.s.log.Error("identity was collected while it was used, its labels have another number now", "labels", h.labels.Key(), "old", uint32(id), "new", uint32(next))
			select {
			case d.moved <- state.Moved{Labels: h.labels, Old: id, New: next}:
			case <-ctx.Done():
			}
			return nil
		})
	})
}
