package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/source/state"
)

// reader serves agentv1.Reader.
type reader struct{ *Agent }

// fail gives an error the code by which clients tell its kind.
func fail(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

func (r reader) Status(ctx context.Context, _ *connect.Request[agentv1.StatusRequest]) (*connect.Response[agentv1.StatusResponse], error) {
	return connect.NewResponse(r.status(ctx)), nil
}

func (r reader) ListEndpoints(ctx context.Context, req *connect.Request[agentv1.ListEndpointsRequest]) (*connect.Response[agentv1.ListEndpointsResponse], error) {
	return reply(r.server.ListEndpoints(ctx, req.Msg))
}

func (r reader) EndpointLog(ctx context.Context, req *connect.Request[agentv1.EndpointLogRequest]) (*connect.Response[agentv1.EndpointLogResponse], error) {
	return reply(r.server.EndpointLog(ctx, req.Msg))
}

// reply wraps what a handler without transport returned.
func reply[T any](msg *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(msg), nil
}

func (r reader) ListIdentities(_ context.Context, req *connect.Request[agentv1.ListIdentitiesRequest]) (*connect.Response[agentv1.ListIdentitiesResponse], error) {
	refs := map[model.IdentityID]uint32{}
	for _, e := range r.endpoints.Table().Snapshot().All() {
		refs[e.Identity]++
	}
	want, err := model.ParseLabels(req.Msg.GetLabels(), model.SourceAny)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	classes, err := r.maps.Classes()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	out := &agentv1.ListIdentitiesResponse{}
	for _, id := range r.policies.Identities() {
		switch {
		case req.Msg.GetId() != 0 && uint32(id.ID) != req.Msg.GetId():
			continue
		case req.Msg.GetEndpointsOnly() && refs[id.ID] == 0:
			continue
		case !hasAll(id.Labels, want):
			continue
		}
		out.Identities = append(out.Identities, &agentv1.Identity{Id: uint32(id.ID), Labels: id.Labels.Strings(),
			Class: uint32(classes[model.Peer{Identity: id.ID}]), References: refs[id.ID]})
	}
	if req.Msg.GetId() != 0 && len(out.Identities) == 0 {
		return nil, fail(connect.CodeNotFound, "identity %d is not known here", req.Msg.GetId())
	}
	return connect.NewResponse(out), nil
}

// hasAll says whether every wanted label is there; a wanted label of source any matches every source.
func hasAll(have, want model.Labels) bool {
	for _, w := range want {
		if v, ok := have.Get(w.Source, w.Key); !ok || v != w.Value {
			return false
		}
	}
	return true
}

func (r reader) ListNodes(context.Context, *connect.Request[agentv1.ListNodesRequest]) (*connect.Response[agentv1.ListNodesResponse], error) {
	out := &agentv1.ListNodesResponse{}
	for _, n := range r.store.nodes.Table().Snapshot().All() {
		out.Nodes = append(out.Nodes, &agentv1.Node{Name: n.Name, Cluster: n.Cluster, Addresses: texts(n.Addrs), PodCidrs: texts(n.PodCIDRs),
			Labels: n.Labels.Strings(), Local: n.Name == r.cfg.NodeName, Routers: texts(n.Routers), FlowAddress: n.FlowAddr})
	}
	return connect.NewResponse(out), nil
}

func texts[T fmt.Stringer](vs []T) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.String()
	}
	return out
}

func (r reader) GetPolicy(_ context.Context, req *connect.Request[agentv1.GetPolicyRequest]) (*connect.Response[agentv1.GetPolicyResponse], error) {
	want, err := model.ParseLabels(req.Msg.GetLabels(), model.SourceAny)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	snap := r.store.policies.Snapshot()
	rules := []any{} // an empty array, not null
	for _, s := range snap.Policies.All() {
		if s.Kind == state.KindCIDRGroup || !hasAll(s.Ref.Labels, want) {
			continue
		}
		p, err := parse.Read(s.Raw)
		if err != nil {
			return nil, fail(connect.CodeInternal, "stored policy %s cannot be read: %w", s.Key, err)
		}
		if p.Cluster != nil {
			rules = append(rules, v1alpha2.ClusterNetworkPolicy{APIVersion: v1alpha2.APIVersion, Kind: p.Ref.Kind,
				Metadata: v2.ObjectMeta{Name: p.Ref.Name}, Spec: *p.Cluster})
		}
		for _, rule := range p.Rules {
			if len(rule.Labels) == 0 {
				rule.Labels = ruleLabels(p.Ref.Labels)
			}
			rules = append(rules, rule)
		}
	}
	text, err := json.MarshalIndent(rules, "", "  ")
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.GetPolicyResponse{Json: string(text), Revision: snap.Revision, Count: uint32(len(rules))}), nil
}

// ruleLabels are a policy's labels in a rule's own form.
func ruleLabels(ls model.Labels) []v2.Label {
	out := make([]v2.Label, len(ls))
	for i, l := range ls {
		out[i] = v2.Label{Key: l.Key, Value: l.Value, Source: l.Source}
	}
	return out
}

func (r reader) WaitPolicy(ctx context.Context, req *connect.Request[agentv1.WaitPolicyRequest]) (*connect.Response[agentv1.WaitPolicyResponse], error) {
	if last := r.store.policies.Snapshot().Revision; req.Msg.GetRevision() > last {
		// A revision of another node's import may be on its way, so wait, but say in the end what is known.
		if err := r.store.policies.WaitRevision(ctx, req.Msg.GetRevision()); err != nil {
			return nil, fail(connect.CodeDeadlineExceeded, "revision %d has not been seen; the newest is %d", req.Msg.GetRevision(), last)
		}
	}
	if err := r.policies.Wait(ctx, req.Msg.GetRevision()); err != nil {
		return nil, fail(connect.CodeDeadlineExceeded, "revision %d is not in force: %v", req.Msg.GetRevision(), err)
	}
	return connect.NewResponse(&agentv1.WaitPolicyResponse{Revision: r.policies.Revision()}), nil
}

func (r reader) GetConfig(context.Context, *connect.Request[agentv1.GetConfigRequest]) (*connect.Response[agentv1.GetConfigResponse], error) {
	out := &agentv1.GetConfigResponse{}
	r.optMu.Lock()
	defer r.optMu.Unlock()
	for _, o := range r.options {
		out.Options = append(out.Options, optionMessage(o))
	}
	return connect.NewResponse(out), nil
}

func optionMessage(o config.Option) *agentv1.ConfigOption {
	return &agentv1.ConfigOption{Name: o.Name, Value: o.Value, Default: o.Default, Source: o.Source, Changeable: config.Runtime[o.Name], Description: o.Usage}
}

func (r reader) ListMaps(context.Context, *connect.Request[agentv1.ListMapsRequest]) (*connect.Response[agentv1.ListMapsResponse], error) {
	ms, err := r.mapStatus()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.ListMapsResponse{Maps: ms}), nil
}

// mapName finds the kernel's name of a map that may be given without its version.
func (a *Agent) mapName(name string) (string, error) {
	list, err := a.maps.List()
	if err != nil {
		return "", connect.NewError(connect.CodeInternal, err)
	}
	var known []string
	for _, m := range list {
		base, _, _ := strings.Cut(m.Name, "_v")
		if m.Name == name || base == name {
			return m.Name, nil
		}
		known = append(known, m.Name)
	}
	return "", fail(connect.CodeNotFound, "no map %q: there are %s", name, strings.Join(known, ", "))
}

func (r reader) DumpMap(_ context.Context, req *connect.Request[agentv1.DumpMapRequest], stream *connect.ServerStream[agentv1.MapRow]) error {
	name, err := r.mapName(req.Msg.GetName())
	if err != nil {
		return err
	}
	var sendErr error
	err = r.maps.Dump(name, func(cols []maps.Column) bool {
		row := &agentv1.MapRow{}
		for _, c := range cols {
			row.Columns = append(row.Columns, &agentv1.Column{Name: c.Name, Value: c.Value})
		}
		sendErr = stream.Send(row)
		return sendErr == nil
	})
	if err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	return sendErr
}

func (r reader) ListIPs(_ context.Context, req *connect.Request[agentv1.ListIPsRequest]) (*connect.Response[agentv1.ListIPsResponse], error) {
	rows := r.ipRows()
	if c := req.Msg.GetCidr(); c != "" {
		p, err := netip.ParsePrefix(c)
		if a, aerr := netip.ParseAddr(c); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fail(connect.CodeInvalidArgument, "%q is neither an address nor a prefix", c)
		}
		if req.Msg.GetLongest() {
			rows = longest(rows, p.Addr())
		} else {
			rows = slices.DeleteFunc(rows, func(e model.IPEntry) bool { return !p.Contains(e.Prefix.Addr()) || e.Prefix.Bits() < p.Bits() })
		}
	}
	want, err := model.ParseLabels(req.Msg.GetLabels(), model.SourceAny)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	out := &agentv1.ListIPsResponse{}
	for _, e := range rows {
		labels, _ := r.policies.Identity(e.Identity)
		if id := req.Msg.GetIdentity(); (id != 0 && uint32(e.Identity) != id) || !hasAll(labels, want) {
			continue
		}
		m := &agentv1.IPEntry{Prefix: e.Prefix.String(), Identity: uint32(e.Identity), Labels: labels.Strings(), Source: e.Source.String(),
			Name: e.Name, Namespace: e.Namespace}
		if e.Tunnel.IsValid() {
			m.HostIp = e.Tunnel.String()
		}
		out.Entries = append(out.Entries, m)
	}
	return connect.NewResponse(out), nil
}

// longest keeps the one row that decides for an address.
func longest(rows []model.IPEntry, a netip.Addr) []model.IPEntry {
	best := -1
	for i, e := range rows {
		if e.Prefix.Contains(a) && (best < 0 || e.Prefix.Bits() > rows[best].Prefix.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return rows[best : best+1]
}

// storeError turns an error of the store into the API's.
func storeError(err error) error {
	switch {
	case errors.Is(err, state.ErrUnreachable):
		return fail(connect.CodeUnavailable, "%w: nothing was changed here; see `hypha status` for the store's state", err)
	case errors.Is(err, kvstore.ErrNoKey):
		return connect.NewError(connect.CodeNotFound, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
