package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/hypha-net/hypha/internal/control/ipam"
	"github.com/hypha-net/hypha/internal/datapath/link"
	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
)

// The endpoint manager's world, made of the other parts.

// addresses is endpoint.IPAM.
type addresses struct{ *ipam.Allocator }

func (a addresses) Versions() (v4, v6 bool) {
	for _, p := range a.Prefixes() {
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	return v4, v6
}

func (a addresses) Allocate(_ context.Context, c endpoint.Claim) (endpoint.Address, error) {
	if c.Pool != "" {
		return endpoint.Address{}, fmt.Errorf("%w: pool %q: addresses are from no pools by name here (option ipam)", endpoint.ErrInvalid, c.Pool)
	}
	var ip netip.Addr
	var err error
	if c.Addr.IsValid() {
		ip, err = c.Addr, a.AllocateIP(c.Addr, c.Owner)
	} else {
		ip, err = a.Allocator.Allocate(c.Owner, "", c.V6)
	}
	if errors.Is(err, ipam.ErrExhausted) {
		err = fmt.Errorf("%w: %w", endpoint.ErrFull, err)
	}
	return endpoint.Address{Addr: ip}, err
}

func (a addresses) Keep(owner string, ip netip.Addr) error { return a.AllocateIP(ip, owner) }

func (a addresses) Release(ip netip.Addr) { a.Allocator.Release(ip) }

// identities is endpoint.Identities.
type identities struct {
	store identityBook
	log   *slog.Logger
}

func (i identities) Allocate(ctx context.Context, labels model.Labels, hint model.IdentityID) (model.IdentityID, error) {
	id, isNew, err := i.store.AllocateHint(ctx, labels, hint)
	if isNew {
		i.log.Info("identity allocated", "identity", uint32(id), "labels", labels.Strings())
	}
	return id, err
}

func (i identities) Release(id model.IdentityID) {
	if err := i.store.Release(id); err != nil { // only a count that is wrong: nothing to be done about it now
		i.log.Error("identity not released", "identity", uint32(id), "err", err)
	}
}

// links is endpoint.Links.
type links struct{ *link.Pairs }

func spec(s endpoint.LinkSpec) link.Spec {
	return link.Spec{HostIfName: s.HostIfName, ContainerID: s.ContainerID, NetNS: s.NetNS, IfName: s.IfName, MAC: s.MAC,
		Addrs: s.Addrs, Gateways: s.Gateways, MTU: s.MTU}
}

func (l links) Create(ctx context.Context, s endpoint.LinkSpec) (endpoint.Link, error) {
	made, err := l.Pairs.Create(ctx, spec(s))
	return endpoint.Link(made), err
}

func (l links) Up(ctx context.Context, s endpoint.LinkSpec) error { return l.Pairs.Up(ctx, spec(s)) }
func (l links) Check(ctx context.Context, s endpoint.LinkSpec) error {
	return l.Pairs.Check(ctx, spec(s))
}

func (l links) Verify(ctx context.Context, ss []endpoint.LinkSpec) (map[string]error, error) {
	specs := make([]link.Spec, len(ss))
	for i := range ss {
		specs[i] = spec(ss[i])
	}
	wrong, err := l.Pairs.Verify(ctx, specs)
	for name, what := range wrong {
		if errors.Is(what, link.ErrGone) {
			wrong[name] = fmt.Errorf("%w: %w", endpoint.ErrNoDevice, what)
		}
	}
	return wrong, err
}

func (l links) List(ctx context.Context) ([]endpoint.Link, error) {
	all, err := l.Pairs.List(ctx)
	out := make([]endpoint.Link, len(all))
	for i := range all {
		out[i] = endpoint.Link(all[i])
	}
	return out, err
}

// publisher is a workloadBook over etcd.
type publisher struct {
	ips    *kvstore.IPs
	tunnel netip.Addr // this node, for the others
}

// rows are what the cluster is told about an endpoint. Identities that mean nothing elsewhere are not told.
func (p publisher) rows(e model.Endpoint) []model.IPEntry {
	if e.Identity == model.IdentityUnknown || e.Identity.Local() {
		return nil
	}
	var out []model.IPEntry
	for _, a := range e.Addrs() {
		out = append(out, model.IPEntry{Prefix: netip.PrefixFrom(a, a.BitLen()), Identity: e.Identity, Tunnel: p.tunnel,
			Source: model.IPSourceKVStore, Name: e.Name, Namespace: e.Namespace, NamedPorts: e.NamedPorts})
	}
	return out
}

func (p publisher) Publish(_ context.Context, e model.Endpoint) error {
	return p.ips.Publish(p.rows(e)...)
}

func (p publisher) Withdraw(e model.Endpoint) {
	var ps []netip.Prefix
	for _, a := range e.Addrs() {
		ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
	}
	p.ips.Withdraw(ps...)
}

// Replace tells the cluster that these are all the endpoints there are.
func (p publisher) Replace(es []model.Endpoint) error {
	var rows []model.IPEntry
	for _, e := range es {
		rows = slices.Concat(rows, p.rows(e))
	}
	return p.ips.Replace(rows)
}
