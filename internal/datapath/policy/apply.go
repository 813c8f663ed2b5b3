// Package policy brings compiled policy into the kernel: it applies plans step by step in their order, and reads back
// what is in force after a restart.
package policy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/hypha-net/hypha/internal/datapath/maps"
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
	Maps     *maps.Maps
	Prefixes Prefixes
}

// Applier writes plans. One plan at a time: its methods must not be called concurrently.
type Applier struct {
	deps Deps
}

// New makes an applier.
func New(deps Deps) *Applier { return &Applier{deps: deps} }

// Apply applies the steps in order. An error ends it: what the failed write would have led to is not switched to, so the
// policy that was in force stays whole; the plan may be applied again.
func (a *Applier) Apply(ctx context.Context, plan model.PolicyPlan) error {
	for i := range plan.Steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("apply policy revision %d: %w", plan.Revision, err)
		}
		if err := a.Step(plan.Steps[i], nil); err != nil {
			return fmt.Errorf("apply policy revision %d, step %d: %w", plan.Revision, i+1, err)
		}
	}
	return nil
}

// Step applies one step. commit, unless nil, is called where endpoints flip to their sets, after them, so that a caller
// can bring a new endpoint in at the one moment when all it needs is written and nothing is deleted yet.
func (a *Applier) Step(s model.PolicyStep, commit func() error) error {
	m := a.deps.Maps
	if err := m.PutLists(s.Lists); err != nil {
		return err
	}
	if err := m.PutClasses(s.Classes); err != nil {
		return err
	}
	if len(s.Classes) > 0 {
		ids := make([]model.IdentityID, 0, len(s.Classes))
		for id := range s.Classes {
			ids = append(ids, id)
		}
		if err := a.deps.Prefixes.ClassesKnown(ids); err != nil {
			return err
		}
	}
	if len(s.Prefixes) > 0 {
		if err := a.deps.Prefixes.PutPolicyPrefixes(s.Prefixes); err != nil {
			return err
		}
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
		if err := m.BumpEpoch(); err != nil {
			return err
		}
	}
	if len(s.DeletePrefixes) > 0 {
		if err := a.deps.Prefixes.DeletePolicyPrefixes(s.DeletePrefixes); err != nil {
			return err
		}
	}
	if len(s.DeleteClasses) > 0 {
		if err := a.deps.Prefixes.ClassesGone(s.DeleteClasses); err != nil {
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
		err := a.deps.Maps.UpdateEndpoint(addr, func(e *maps.Endpoint) bool {
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
