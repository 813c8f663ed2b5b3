package policy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/datapath/ipcache"
	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	dppolicy "github.com/hypha-net/hypha/internal/datapath/policy"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/packet"
)

// failer is what a check needs of *rapid.T and *testing.T.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// world is the truth, and the three that judge by it.
type world struct {
	t       failer
	k       *kernel
	cache   *ipcache.Cache
	applier *dppolicy.Applier
	engine  *policy.Engine
	rand    *rand.Rand

	cfg        policy.Config
	audit      bool // audit mode of the node, which the engine is not told
	policies   map[string]parse.Policy
	groups     map[string]oracle.Group
	stored     map[string]parse.CIDRGroup
	identities map[model.IdentityID]policy.Identity
	subjects   map[uint16]policy.Subject
	remote     [remotes]model.IdentityID         // 0: not there
	homes      map[netip.Addr][]model.IdentityID // as the engine has been told
	revision   uint64

	sport   uint16
	tracked []*conn
	seen    func() // called after each write of a plan, unless nil
}

func newWorld(t failer, k *kernel, cfg policy.Config, seed uint64) *world {
	w := &world{t: t, k: k, cfg: cfg, rand: rand.New(rand.NewPCG(seed, 3)), policies: map[string]parse.Policy{}, groups: map[string]oracle.Group{},
		stored: map[string]parse.CIDRGroup{}, identities: map[model.IdentityID]policy.Identity{}, subjects: map[uint16]policy.Subject{}, sport: 1024}
	w.must(k.clear())
	w.start()
	for _, s := range everybody {
		if len(s.labels) > 0 {
			w.identities[s.fixed] = policy.Identity{Identity: model.Identity{ID: s.fixed, Labels: s.labels}}
		}
	}
	w.apply(policy.Changes{Identities: slices.Collect(maps.Values(w.identities))})
	w.addresses()
	w.apply(policy.Changes{})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// clear empties the maps.
func (k *kernel) clear() error {
	lists, err := k.maps.Lists()
	if err != nil {
		return err
	}
	if err := k.maps.DeleteLists(slices.Collect(maps.Keys(lists))); err != nil {
		return err
	}
	classes, err := k.maps.Classes()
	if err != nil {
		return err
	}
	if err := k.maps.DeleteClasses(slices.Collect(maps.Keys(classes))); err != nil {
		return err
	}
	areas, err := k.maps.Areas()
	if err != nil {
		return err
	}
	if err := k.maps.DeleteAreas(slices.Collect(maps.Keys(areas))); err != nil {
		return err
	}
	ips, err := k.maps.IPs()
	if err != nil {
		return err
	}
	for p := range ips {
		if err := k.maps.DeleteIP(p); err != nil {
			return err
		}
	}
	eps, err := k.maps.Endpoints()
	if err != nil {
		return err
	}
	for a, e := range eps {
		if err := k.maps.DeleteEndpoint(a, e.ID); err != nil {
			return err
		}
	}
	if err := k.maps.SetAudit(false); err != nil {
		return err
	}
	if err := errors.Join(k.unserve(), k.announce()); err != nil {
		return err
	}
	_, err = k.maps.FlushConnections()
	return err
}

// start makes what an agent makes when it starts, over what the kernel holds.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.cache, err = ipcache.New(ipcache.Config{Overlay: true}, ipcache.Deps{Log: discard, Kernel: w.k.maps})
	w.must(err)
	w.applier = dppolicy.New(dppolicy.Deps{Log: discard, Maps: w.k.maps, Prefixes: w.cache})
	state, err := w.applier.ReadState()
	w.must(err)
	w.homes = map[netip.Addr][]model.IdentityID{}
	w.engine, err = policy.New(w.cfg, state)
	w.must(err)
}

// addresses tells the address cache all that its sources know.
func (w *world) addresses() {
	w.t.Helper()
	for _, row := range nodeRows(w.v(0), w.v(1)) {
		w.must(w.cache.Upsert(row.Prefix, row))
	}
	for _, s := range everybody {
		switch {
		case s.place == local && w.subjects[s.ep].Endpoint != 0:
			w.localRows(s)
		case s.place == through && s.fixed == 0 && w.remote[s.index] != 0:
			w.remoteRows(s)
		}
	}
	w.must(w.cache.Complete())
}

// v says whether an IP version is in use: 0 is IPv4.
func (w *world) v(version int) bool {
	on := [2]bool{w.cfg.IPv4, w.cfg.IPv6}
	return on[version] || on[0] == on[1]
}

func (w *world) localRows(s *somebody) {
	w.t.Helper()
	for v, a := range s.addr {
		if w.v(v) {
			w.must(w.cache.Upsert(single(a), model.IPEntry{Prefix: single(a), Identity: w.subjects[s.ep].Identity, Source: model.IPSourceLocal, NoMasq: true}))
		}
	}
}

func (w *world) remoteRows(s *somebody) {
	w.t.Helper()
	for v, a := range s.addr {
		switch {
		case !w.v(v):
		case w.remote[s.index] == 0:
			w.must(w.cache.Delete(single(a), model.IPSourceKVStore))
		default:
			w.must(w.cache.Upsert(single(a), remoteRow(a, w.remote[s.index])))
		}
	}
}

// apply gives the engine news and the kernel what follows.
func (w *world) apply(c policy.Changes) {
	w.t.Helper()
	w.revision++
	c.Revision = w.revision
	w.house(&c, nil, 0)
	plan, err := w.engine.Apply(c)
	w.must(err)
	w.write(plan, 0, nil)
}

// house adds to the news who lives where, as the address cache says and the workloads here, and one who is about to come.
func (w *world) house(c *policy.Changes, coming *somebody, id model.IdentityID) {
	now := map[netip.Addr][]model.IdentityID{}
	for a, ids := range w.cache.Homes().Snapshot().All() {
		now[a] = slices.Clone(ids)
	}
	for _, s := range everybody {
		for v, a := range s.addr {
			if s.place == local && w.subjects[s.ep].Endpoint != 0 && w.v(v) {
				now[a] = append(now[a], w.subjects[s.ep].Identity)
			}
			if s == coming && w.v(v) {
				now[a] = append(now[a], id)
			}
		}
	}
	c.Addresses = map[netip.Addr][]model.IdentityID{}
	for a := range w.homes {
		if len(now[a]) == 0 {
			c.DeleteAddresses = append(c.DeleteAddresses, a)
		}
	}
	for a, ids := range now {
		slices.Sort(ids)
		now[a] = slices.Compact(ids)
		if !slices.Equal(w.homes[a], now[a]) {
			c.Addresses[a] = now[a]
		}
	}
	w.homes = now
}

// write applies a plan, write by write if somebody watches. The flip of endpoint ep is left to commit.
func (w *world) write(plan model.PolicyPlan, ep uint16, commit func() error) {
	w.t.Helper()
	if commit != nil && !slices.ContainsFunc(plan.Steps, func(s model.PolicyStep) bool { _, ok := s.EndpointSets[ep]; return ok }) {
		w.must(commit())
		w.look()
		commit = nil
	}
	if w.seen == nil && commit == nil {
		w.must(w.applier.Apply(context.Background(), plan, nil))
		return
	}
	for _, s := range plan.Steps {
		for _, one := range w.split(s) {
			var here func() error
			if _, ok := one.EndpointSets[ep]; ok && commit != nil {
				one.EndpointSets, here = maps.Clone(one.EndpointSets), commit
				delete(one.EndpointSets, ep)
			}
			w.must(w.applier.Step(one, here))
			w.look()
		}
	}
}

func (w *world) look() {
	if w.seen != nil {
		w.seen()
	}
}

// split makes each write of a step a step of its own, in the order that the model promises, random where it promises
// none.
func (w *world) split(s model.PolicyStep) []model.PolicyStep {
	if w.seen == nil {
		return []model.PolicyStep{s}
	}
	var out []model.PolicyStep
	each(w, s.Lists, func(m map[model.PolicyKey]model.PolicyList) { out = append(out, model.PolicyStep{Lists: m}) })
	for _, areas := range []bool{true, false} {
		each(w, s.Classes, func(m map[model.Peer]model.ClassID) {
			for p := range m {
				if (p.Area != 0) == areas {
					out = append(out, model.PolicyStep{Classes: m})
				}
			}
		})
	}
	each(w, s.Prefixes, func(m map[netip.Prefix]model.IdentityID) { out = append(out, model.PolicyStep{Prefixes: m}) })
	for _, p := range slices.SortedFunc(maps.Keys(s.Areas), func(a, b netip.Prefix) int { return b.Bits() - a.Bits() }) {
		out = append(out, model.PolicyStep{Areas: map[netip.Prefix]model.Area{p: s.Areas[p]}})
	}
	each(w, s.EndpointSets, func(m map[uint16]model.SetID) { out = append(out, model.PolicyStep{EndpointSets: m}) })
	if s.BumpEpoch {
		out = append(out, model.PolicyStep{BumpEpoch: true})
	}
	for _, x := range shuffled(w, s.DeletePrefixes) {
		out = append(out, model.PolicyStep{DeletePrefixes: []netip.Prefix{x}})
	}
	for _, x := range s.DeleteAreas {
		out = append(out, model.PolicyStep{DeleteAreas: []netip.Prefix{x}})
	}
	for _, x := range shuffled(w, s.DeleteClasses) {
		out = append(out, model.PolicyStep{DeleteClasses: []model.Peer{x}})
	}
	for _, x := range shuffled(w, s.DeleteLists) {
		out = append(out, model.PolicyStep{DeleteLists: []model.PolicyKey{x}})
	}
	return out
}

func each[K comparable, V any](w *world, m map[K]V, f func(map[K]V)) {
	for _, k := range shuffled(w, slices.Collect(maps.Keys(m))) {
		f(map[K]V{k: m[k]})
	}
}

func shuffled[T any](w *world, in []T) []T {
	out := slices.Clone(in)
	w.rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// enforce brings a workload in, or changes its labels, ports or audit mode, as the agent does: its rows are written at the
// moment when its policy is complete.
func (w *world) enforce(s *somebody, sub policy.Subject) {
	w.t.Helper()
	// The identity first: the workload's rows must not name one that has no class yet.
	first := policy.Changes{Identities: []policy.Identity{w.identities[sub.Identity]}}
	w.house(&first, s, sub.Identity)
	plan, err := w.engine.Apply(first)
	w.must(err)
	w.write(plan, 0, nil)
	w.revision++
	w.subjects[s.ep] = sub
	plan, err = w.engine.Apply(policy.Changes{Subjects: []policy.Subject{sub}, Revision: w.revision})
	w.must(err)
	set, ok := w.engine.Set(s.ep)
	if !ok {
		w.t.Fatalf("endpoint %d got no set", s.ep)
	}
	w.write(plan, s.ep, func() error {
		row := dpmaps.Endpoint{ID: s.ep, IfIndex: uint32(w.k.dev[s.ep-1]), Identity: sub.Identity, Set: set, Audit: sub.Audit}
		copy(row.MAC[:], s.mac())
		copy(row.HostMAC[:], s.hostMAC())
		for v, a := range s.addr {
			if !w.v(v) {
				continue
			}
			if err := w.k.maps.PutEndpoint(a, row); err != nil {
				return err
			}
		}
		return nil
	})
	w.localRows(s)
	w.apply(policy.Changes{})
}

// leave takes a workload out.
func (w *world) leave(s *somebody) {
	w.t.Helper()
	delete(w.subjects, s.ep)
	for v, a := range s.addr {
		if w.v(v) {
			w.must(w.k.maps.DeleteEndpoint(a, s.ep))
			w.must(w.cache.Delete(single(a), model.IPSourceLocal))
		}
	}
	w.apply(policy.Changes{DeleteSubjects: []uint16{s.ep}})
}

// restart does what an agent does that was killed: it starts over on what the kernel holds, and finds nothing to do. A
// policy prefix that is hidden behind somebody who is known is not in the kernel to be found, so it is numbered again;
// but no workload gets another policy for that.
func (w *world) restart() {
	w.t.Helper()
	hidden := w.hidden()
	w.k.open()
	epoch, err := w.k.maps.Epoch()
	w.must(err)
	w.start()
	w.revision++
	c := policy.Changes{Policies: slices.Collect(maps.Values(w.policies)), CIDRGroups: slices.Collect(maps.Values(w.stored)),
		Identities: slices.Collect(maps.Values(w.identities)), Subjects: slices.Collect(maps.Values(w.subjects)), Revision: w.revision}
	w.house(&c, nil, 0)
	plan, err := w.engine.Apply(c)
	w.must(err)
	if hidden {
		for _, s := range plan.Steps {
			if len(s.EndpointSets) > 0 {
				w.t.Fatalf("a restart without news makes sets anew: %+v", plan.Steps)
			}
		}
		w.write(plan, 0, nil)
		w.addresses()
		return
	}
	if len(plan.Steps) > 0 {
		w.t.Fatalf("a restart without news writes policy: %+v", plan.Steps)
	}
	w.addresses()
	if now, err := w.k.maps.Epoch(); err != nil || now != epoch {
		w.t.Fatalf("a restart without news starts an epoch: %d, was %d (%v)", now, epoch, err)
	}
}

// hidden says whether a policy prefix has no row of its own.
func (w *world) hidden() bool {
	w.t.Helper()
	rows, err := w.k.maps.IPs()
	w.must(err)
	for p, id := range w.engine.PrefixIdentities() {
		if rows[p].Identity != id.ID {
			return true
		}
	}
	return false
}

func (s *somebody) mac() []byte     { return packet.MAC(0x10 + byte(s.ep)) }
func (s *somebody) hostMAC() []byte { return packet.MAC(0x90 + byte(s.ep)) }

// there says whether somebody can send and receive.
func (w *world) there(s *somebody) bool {
	switch {
	case s.place == local:
		return w.subjects[s.ep].Endpoint != 0
	case s.place == through && s.fixed == 0:
		return w.remote[s.index] != 0
	}
	return true
}

// identity is who somebody is; 0 for the outside, where policies decide that.
func (w *world) identity(s *somebody) model.IdentityID {
	switch {
	case s.place == local:
		return w.subjects[s.ep].Identity
	case s.place == through && s.fixed == 0:
		return w.remote[s.index]
	}
	return s.fixed
}

var _ failer = (*rapid.T)(nil)

func (s *somebody) String() string { return fmt.Sprintf("%s %v", s.name, s.addr) }
