// Package policy brings compiled policy into the kernel: it applies plans step by step in their order, and reads back
// what is in force after a restart.
package policy

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	dpmaps "github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
)

// Prefixes is where policy prefixes meet what else is known of addresses: ipcache.Cache.
type Prefixes interface {
	// PutPolicyPrefixes writes policy prefixes with their node-local identities.
	PutPolicyPrefixes(map[netip.Prefix]model.IdentityID) error
	// DeletePolicyPrefixes removes policy prefixes.
	DeletePolicyPrefixes([]netip.Prefix) error
	// ClassesKnown says that rows of class_v1 exist by now for these identities.
	ClassesKnown([]model.IdentityID) error
	// ClassesGone says that the rows of these identities are about to be deleted.
	ClassesGone([]model.IdentityID) error
}

// Deps are what an Applier needs from others.
type Deps struct {
	Log      *slog.Logger
	Maps     *dpmaps.Maps
	Prefixes Prefixes
}

// Applier writes plans. One plan at a time: its methods must not be called concurrently.
type Applier struct {
	deps Deps
}

// New makes an applier.
func New(deps Deps) *Applier { return &Applier{deps: deps} }

// Apply applies the steps in order. An error ends it: what the failed write would have led to is not switched to, so the
// policy that was in force stays whole; the plan may be applied again. inForce, unless nil, is called once no verdict will
// change any more and only the last step's deletions are left, for which running programs are waited for.
func (a *Applier) Apply(ctx context.Context, plan model.PolicyPlan, inForce func()) error {
	if inForce == nil {
		inForce = func() {}
	}
	if len(plan.Steps) == 0 {
		inForce()
	}
	for i, s := range plan.Steps {
		err := ctx.Err()
		if err == nil {
			err = a.write(s, nil)
		}
		if err == nil {
			if i == len(plan.Steps)-1 {
				inForce()
			}
			err = a.remove(s)
		}
		if err != nil {
			return fmt.Errorf("apply policy revision %d, step %d: %w", plan.Revision, i+1, err)
		}
	}
	return nil
}

// Step applies one step. commit, unless nil, is called where endpoints flip to their sets, after them, so that a caller
// can bring a new endpoint in at the one moment when all it needs is written and nothing is deleted yet.
func (a *Applier) Step(s model.PolicyStep, commit func() error) error {
	if err := a.write(s, commit); err != nil {
		return err
	}
	return a.remove(s)
}

// write does all of a step but its deletions.
func (a *Applier) write(s model.PolicyStep, commit func() error) error {
	m := a.deps.Maps
	if err := m.PutLists(s.Lists); err != nil {
		return err
	}
	if err := m.PutClasses(s.Classes); err != nil {
		return err
	}
	if ids := identities(maps.Keys(s.Classes)); len(ids) > 0 {
		if err := a.deps.Prefixes.ClassesKnown(ids); err != nil {
			return err
		}
	}
	if len(s.Prefixes) > 0 {
		if err := a.deps.Prefixes.PutPolicyPrefixes(s.Prefixes); err != nil {
			return err
		}
	}
	if err := m.PutAreas(s.Areas); err != nil {
		return err
	}
	if err := a.flip(s.EndpointSets); err != nil {
		return err
	}
	if commit != nil {
		if err := commit(); err != nil {
			return err
		}
	}
	if s.BumpEpoch {
		return m.BumpEpoch()
	}
	return nil
}

// identities are those of peers that are not in an area.
func identities(peers iter.Seq[model.Peer]) (out []model.IdentityID) {
	for p := range peers {
		if p.Area == 0 {
			out = append(out, p.Identity)
		}
	}
	return out
}

// remove does the deletions of a step. A program that read the number of a set or an area, or the identity of a prefix, before it
// was taken out of use must still find the rows behind it, or it would drop a packet that both the old policy and the new one allow.
func (a *Applier) remove(s model.PolicyStep) error {
	m := a.deps.Maps
	if len(s.DeletePrefixes) > 0 {
		if err := a.deps.Prefixes.DeletePolicyPrefixes(s.DeletePrefixes); err != nil {
			return err
		}
	}
	if err := m.DeleteAreas(s.DeleteAreas); err != nil {
		return err
	}
	if len(s.DeletePrefixes)+len(s.DeleteAreas)+len(s.DeleteLists) > 0 {
		if err := m.Quiesce(); err != nil {
			return err
		}
	}
	if len(s.DeleteClasses) > 0 {
		if err := a.deps.Prefixes.ClassesGone(identities(slices.Values(s.DeleteClasses))); err != nil {
			return err
		}
		if err := m.DeleteClasses(s.DeleteClasses); err != nil {
			return err
		}
	}
	return m.DeleteLists(s.DeleteLists)
}

// flip points endpoints to their sets, all addresses of each.
func (a *Applier) flip(sets map[uint16]model.SetID) error {
	if len(sets) == 0 {
		return nil
	}
	rows, err := a.deps.Maps.Endpoints()
	if err != nil {
		return err
	}
	for addr, row := range rows {
		set, ok := sets[row.ID]
		if !ok || row.Set == set {
			continue
		}
		err := a.deps.Maps.UpdateEndpoint(addr, func(e *dpmaps.Endpoint) bool {
			if e.ID != row.ID {
				return false // the address has gone to another endpoint meanwhile
			}
			e.Set = set
			return true
		})
		if err != nil {
			return fmt.Errorf("switch endpoint %d to policy set %d: %w", row.ID, set, err)
		}
	}
	return nil
}

// ReadState reads the policy that the kernel holds.
func (a *Applier) ReadState() (model.PolicyState, error) {
	st := model.PolicyState{Prefixes: map[netip.Prefix]model.IdentityID{}, EndpointSets: map[uint16]model.SetID{}}
	var err error
	if st.Lists, err = a.deps.Maps.Lists(); err != nil {
		return st, err
	}
	if st.Classes, err = a.deps.Maps.Classes(); err != nil {
		return st, err
	}
	if st.Areas, err = a.deps.Maps.Areas(); err != nil {
		return st, err
	}
	ips, err := a.deps.Maps.IPs()
	if err != nil {
		return st, err
	}
	for p, ip := range ips {
		if ip.Identity&model.IdentityScopeMask == model.IdentityScopeLocal {
			st.Prefixes[p] = ip.Identity
		}
	}
	eps, err := a.deps.Maps.Endpoints()
	for _, e := range eps {
		st.EndpointSets[e.ID] = e.Set
	}
	return st, err
}
