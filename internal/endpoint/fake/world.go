// Package fake is a node in memory: everything an endpoint manager works with, for tests. It keeps apart what survives a
// crash of the agent (kernel and files) from what does not, can fail or crash before any step, and watches that no
// workload can ever be reached without its programs.
package fake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/model"
)

// ErrCrash from the function given to World.Before makes the agent die at that step: nothing it does afterwards has any effect, until Restart.
var ErrCrash = errors.New("crash")

// Device is a device pair.
type Device struct {
	endpoint.Link
	NetNS, IfName string
	Addrs         []netip.Addr
	Up            bool
}

// Row is what the kernel knows of an address.
type Row struct {
	ID       uint16
	IfIndex  int
	Identity model.IdentityID
	Set      model.SetID
	Audit    bool
}

// World is a node. Make one with New; the exported maps are to be read when nothing is going on.
type World struct {
	policy sync.Mutex // as the policy engine's own lock: held while policy is changed or enforced
	rev    uint64

	mu         sync.Mutex
	before     func(step string) error
	dead       bool
	ifindex    int
	Devices    map[string]Device // survive a crash
	Rows       map[netip.Addr]Row
	Pins       map[uint16]int // endpoint -> ifindex its programs are on
	Published  map[netip.Addr]model.IdentityID
	Refs       map[model.IdentityID]int // do not survive
	Taken      map[netip.Addr]string
	Known      map[uint16]model.IdentityID // to the policy engine
	Violations []string

	numbers map[string]model.IdentityID
	number  model.IdentityID // the next
	next    map[bool]netip.Addr
	records endpoint.Store
}

// New makes an empty node whose state files are in this store.
func New(store endpoint.Store) *World {
	w := &World{
		ifindex: 10, rev: 1, records: store,
		Devices: map[string]Device{}, Rows: map[netip.Addr]Row{}, Pins: map[uint16]int{}, numbers: map[string]model.IdentityID{}, number: model.IdentityClusterMin,
		next: map[bool]netip.Addr{false: netip.MustParseAddr("10.1.0.2"), true: netip.MustParseAddr("fd00::2")},
	}
	w.Restart()
	return w
}

// Restart is what happens to a node when its agent is started again after a crash: leases and memory are gone.
func (w *World) Restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = false
	w.Published = map[netip.Addr]model.IdentityID{}
	w.Refs = map[model.IdentityID]int{}
	w.Taken = map[netip.Addr]string{}
	w.Known = map[uint16]model.IdentityID{}
}

// ForgetIdentities is a store that has lost its data.
func (w *World) ForgetIdentities() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.numbers = map[string]model.IdentityID{}
}

// Deps are the parts of the node, for a manager.
func (w *World) Deps() endpoint.Deps {
	return endpoint.Deps{IPAM: ipam{w}, Identities: identities{w}, Links: links{w}, Datapath: datapath{w}, Policy: policy{w},
		Publisher: publisher{w}, Store: store{w}}
}

// Damage changes the node as somebody other than the agent would.
func (w *World) Damage(fn func(*World)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w)
}

// Before makes fn be called before each step that has an effect, with its name; an error makes the step fail. nil ends that.
func (w *World) Before(fn func(step string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = fn
}

func (w *World) hook(step string) error {
	w.mu.Lock()
	fn := w.before
	w.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(step)
}

// step does one thing, unless it is to fail or the agent is dead.
func (w *World) step(name string, do func() error) error {
	return w.stepAfter(name, func() error { return w.hook(name) }, do)
}

func (w *World) stepAfter(name string, before, do func() error) error {
	if err := before(); err != nil {
		if errors.Is(err, ErrCrash) {
			w.mu.Lock()
			w.dead = true
			w.mu.Unlock()
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return fmt.Errorf("%s: %w", name, ErrCrash)
	}
	err := do()
	w.watch(name)
	return err
}

// sure is step for what cannot fail, save that the agent may die.
func (w *World) sure(name string, do func()) {
	_ = w.stepAfter(name, func() error { // the error is a dead agent's
		if err := w.hook(name); errors.Is(err, ErrCrash) {
			return err
		}
		return nil
	}, func() error { do(); return nil })
}

// watch notes a breach of the rule that a device is up only with its programs on it.
func (w *World) watch(name string) {
	for host, d := range w.Devices {
		if d.Up && !slices.Contains(slices.Collect(maps.Values(w.Pins)), d.HostIfIndex) {
			w.Violations = append(w.Violations, fmt.Sprintf("after %s: %s is up without programs", name, host))
		}
	}
}

// ChangePolicy is a new policy: every identity gets another set, rows and manager are told, as a policy engine does it.
func (w *World) ChangePolicy(m *endpoint.Manager) {
	w.policy.Lock()
	defer w.policy.Unlock()
	w.mu.Lock()
	w.rev++
	sets := map[uint16]model.SetID{}
	for a, r := range w.Rows {
		r.Set = w.set(r.Identity)
		w.Rows[a] = r
		sets[r.ID] = r.Set
	}
	rev := w.rev
	w.mu.Unlock()
	m.SetPolicies(sets, rev)
}

// set is the number of the policy set of an identity now; never 0.
func (w *World) set(id model.IdentityID) model.SetID {
	return model.SetID(uint32(w.rev)*100000 + uint32(id))
}

type ipam struct{ w *World }

func (ipam) Versions() (v4, v6 bool) { return true, true }

func (i ipam) Allocate(_ context.Context, c endpoint.Claim) (endpoint.Address, error) {
	a, err := i.take(c.Owner, c.V6, c.Addr)
	return endpoint.Address{Addr: a, Pool: c.Pool}, err
}

func (i ipam) Keep(owner string, a netip.Addr) error {
	_, err := i.take(owner, a.Is6(), a)
	return err
}

func (i ipam) take(owner string, v6 bool, want netip.Addr) (a netip.Addr, err error) {
	err = i.w.step("allocate address", func() error {
		a = want
		for !a.IsValid() {
			if n := i.w.next[v6]; i.w.Taken[n] == "" {
				a = n
			}
			i.w.next[v6] = i.w.next[v6].Next()
		}
		if o := i.w.Taken[a]; o != "" {
			return fmt.Errorf("%s is taken by %s: %w", a, o, endpoint.ErrFull)
		}
		i.w.Taken[a] = owner
		return nil
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return a, nil
}

func (i ipam) Release(a netip.Addr) {
	i.w.sure("release address", func() { delete(i.w.Taken, a) })
}

type identities struct{ w *World }

func (i identities) Allocate(_ context.Context, ls model.Labels, hint model.IdentityID) (id model.IdentityID, err error) {
	err = i.w.step("allocate identity", func() error {
		id = i.w.numbers[ls.Key()]
		if id == 0 {
			if id = hint; id == 0 {
				id = i.w.number
				i.w.number++
			}
			i.w.numbers[ls.Key()] = id
		}
		i.w.Refs[id]++
		return nil
	})
	return id, err
}

func (i identities) Release(id model.IdentityID) {
	i.w.sure("release identity", func() {
		if i.w.Refs[id]--; i.w.Refs[id] == 0 {
			delete(i.w.Refs, id)
		} else if i.w.Refs[id] < 0 {
			i.w.Violations = append(i.w.Violations, fmt.Sprintf("identity %d released too often", id))
		}
	})
}

type links struct{ w *World }

func (l links) Create(_ context.Context, s endpoint.LinkSpec) (out endpoint.Link, err error) {
	err = l.w.step("create link", func() error {
		if _, ok := l.w.Devices[s.HostIfName]; ok {
			return fs.ErrExist
		}
		l.w.ifindex++
		out = endpoint.Link{HostIfName: s.HostIfName, HostIfIndex: l.w.ifindex,
			MAC: fmt.Sprintf("02:00:00:00:00:%02x", l.w.ifindex%256), HostMAC: fmt.Sprintf("02:00:00:00:01:%02x", l.w.ifindex%256)}
		if s.MAC != "" {
			out.MAC = s.MAC
		}
		l.w.Devices[s.HostIfName] = Device{Link: out, NetNS: s.NetNS, IfName: s.IfName, Addrs: s.Addrs}
		return nil
	})
	return out, err
}

func (l links) Up(_ context.Context, s endpoint.LinkSpec) error {
	return l.w.step("link up", func() error {
		d, ok := l.w.Devices[s.HostIfName]
		if !ok {
			return fs.ErrNotExist
		}
		d.Up = true
		l.w.Devices[s.HostIfName] = d
		for _, a := range d.Addrs {
			if r, ok := l.w.Rows[a]; !ok || r.IfIndex != d.HostIfIndex || r.Set == 0 {
				l.w.Violations = append(l.w.Violations, fmt.Sprintf("link up: no policy at %s", a))
			}
		}
		return nil
	})
}

func (l links) Delete(_ context.Context, host string) error {
	return l.w.step("delete link", func() error { delete(l.w.Devices, host); return nil })
}

func (l links) Check(_ context.Context, s endpoint.LinkSpec) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if d, ok := l.w.Devices[s.HostIfName]; !ok || !d.Up {
		return errors.New("device is not there or not up")
	}
	return nil
}

func (l links) Verify(_ context.Context, specs []endpoint.LinkSpec) (map[string]error, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	wrong := map[string]error{}
	for _, s := range specs {
		if d, ok := l.w.Devices[s.HostIfName]; !ok {
			wrong[s.HostIfName] = endpoint.ErrNoDevice
		} else if !d.Up {
			wrong[s.HostIfName] = errors.New("down")
		}
	}
	return wrong, nil
}

func (l links) List(context.Context) ([]endpoint.Link, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	var out []endpoint.Link
	for _, d := range l.w.Devices {
		out = append(out, d.Link)
	}
	return out, nil
}

type datapath struct{ w *World }

func (d datapath) UpsertEndpoint(_ context.Context, e model.Endpoint) error {
	return d.w.step("write rows", func() error {
		for _, a := range e.Addrs() {
			d.w.Rows[a] = Row{ID: e.ID, IfIndex: e.HostIfIndex, Identity: e.Identity, Set: model.SetID(e.PolicySet), Audit: e.Audit}
		}
		return nil
	})
}

func (d datapath) DeleteEndpoint(_ context.Context, e model.Endpoint) error {
	return d.w.step("delete rows", func() error {
		for _, a := range e.Addrs() {
			if d.w.Rows[a].ID == e.ID {
				delete(d.w.Rows, a)
			}
		}
		return nil
	})
}

func (d datapath) Attach(_ context.Context, e model.Endpoint) error {
	return d.w.step("attach", func() error { d.w.Pins[e.ID] = e.HostIfIndex; return nil })
}

func (d datapath) Verify(_ context.Context, e model.Endpoint) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	for _, a := range e.Addrs() {
		if r := d.w.Rows[a]; r.ID != e.ID || r.IfIndex != e.HostIfIndex {
			return fmt.Errorf("row of %s is missing", a)
		}
	}
	if d.w.Pins[e.ID] != e.HostIfIndex {
		return errors.New("programs are off")
	}
	return nil
}

func (d datapath) Detach(_ context.Context, e model.Endpoint) error {
	return d.w.step("detach", func() error { delete(d.w.Pins, e.ID); return nil })
}

func (d datapath) Prune(_ context.Context, keep []model.Endpoint) error {
	return d.w.step("prune", func() error {
		ids := map[uint16]bool{}
		for _, e := range keep {
			ids[e.ID] = true
		}
		maps.DeleteFunc(d.w.Rows, func(_ netip.Addr, r Row) bool { return !ids[r.ID] })
		maps.DeleteFunc(d.w.Pins, func(id uint16, _ int) bool { return !ids[id] })
		return nil
	})
}

type policy struct{ w *World }

func (p policy) Enforce(_ context.Context, e model.Endpoint, commit func(model.SetID, uint64) error) error {
	p.w.policy.Lock()
	defer p.w.policy.Unlock()
	var set model.SetID
	var rev uint64
	err := p.w.step("enforce policy", func() error {
		p.w.Known[e.ID] = e.Identity
		set, rev = p.w.set(e.Identity), p.w.rev
		return nil
	})
	if err != nil {
		return err
	}
	return commit(set, rev)
}

func (p policy) Forget(id uint16) {
	p.w.sure("forget policy", func() { delete(p.w.Known, id) })
}

type publisher struct{ w *World }

func (p publisher) Publish(_ context.Context, e model.Endpoint) error {
	return p.w.step("publish", func() error {
		for _, a := range e.Addrs() {
			p.w.Published[a] = e.Identity
		}
		return nil
	})
}

func (p publisher) Withdraw(e model.Endpoint) {
	p.w.sure("withdraw", func() {
		for _, a := range e.Addrs() {
			delete(p.w.Published, a)
		}
	})
}

type store struct{ w *World }

func (s store) Load() ([]endpoint.Record, error, error) { return s.w.records.Load() }

func (s store) Save(r endpoint.Record) error {
	return s.w.step("save state", func() error { return s.w.records.Save(r) })
}

func (s store) Remove(id uint16) error {
	return s.w.step("remove state", func() error { return s.w.records.Remove(id) })
}
