package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/config"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/datapath/maps"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/state"
)

// admin serves agentv1.Admin.
type admin struct{ *Agent }

// ImportPolicy parses a document strictly and stores all of it or nothing.
func (a admin) ImportPolicy(ctx context.Context, req *connect.Request[agentv1.ImportPolicyRequest]) (*connect.Response[agentv1.ImportPolicyResponse], error) {
	name := req.Msg.GetFilename()
	if name == "" {
		name = "policy"
	}
	policies, groups, err := parse.Parse(name, []byte(req.Msg.GetDocument()))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	stored, labels, err := store(policies, groups)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	out := &agentv1.ImportPolicyResponse{Count: uint32(len(stored)), Revision: a.store.policies.Snapshot().Revision}
	if req.Msg.GetDryRun() || len(stored) == 0 {
		return connect.NewResponse(out), nil
	}
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	var replace func(state.Policy) bool
	if req.Msg.GetReplace() {
		replace = func(p state.Policy) bool {
			return slices.ContainsFunc(labels, func(l model.Labels) bool { return len(l) > 0 && p.Ref.Labels.Equal(l) })
		}
	}
	out.Revision, err = kv.Policies().Import(ctx, stored, replace)
	if err != nil {
		return nil, storeError(err)
	}
	a.observer.Agent.PolicyUpdated(labelTexts(labels), out.Revision, len(stored))
	a.log.Info("policy imported", "file", name, "policies", len(stored), "revision", out.Revision)
	return connect.NewResponse(out), nil
}

// store turns parsed policies into stored ones; labels are those of each.
func store(policies []parse.Policy, groups []parse.CIDRGroup) (out []state.Policy, labels []model.Labels, err error) {
	for _, p := range policies {
		raw, err := json.Marshal(p)
		if err != nil {
			return nil, nil, fmt.Errorf("store policy %s: %w", p.Key, err)
		}
		out = append(out, state.Policy{Key: p.Key, Kind: p.Ref.Kind, Ref: p.Ref, Raw: raw})
		labels = append(labels, p.Ref.Labels)
	}
	for _, g := range groups {
		raw, err := json.Marshal(g)
		if err != nil {
			return nil, nil, fmt.Errorf("store CIDR group %s: %w", g.Name, err)
		}
		out = append(out, state.Policy{Key: state.KindCIDRGroup + "/" + g.Name, Kind: state.KindCIDRGroup,
			Ref: model.PolicyRef{Kind: state.KindCIDRGroup, Name: g.Name, Labels: g.Labels}, Raw: raw})
	}
	return out, labels, nil
}

func labelTexts(ls []model.Labels) []string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Strings()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// DeletePolicy deletes by labels, by name ([kind/][namespace/]name) or all.
func (a admin) DeletePolicy(ctx context.Context, req *connect.Request[agentv1.DeletePolicyRequest]) (*connect.Response[agentv1.DeletePolicyResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	want, err := model.ParseLabels(req.Msg.GetLabels(), model.SourceAny)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if len(want) == 0 && !req.Msg.GetAll() && req.Msg.GetName() == "" {
		return nil, fail(connect.CodeInvalidArgument, "nothing to delete: give labels, a name, or all")
	}
	revision, n, err := kv.Policies().Delete(ctx, func(p state.Policy) bool {
		if req.Msg.GetAll() {
			return true
		}
		if name := req.Msg.GetName(); name != "" && name != p.Ref.Name && name != p.Key && name != p.Ref.Namespace+"/"+p.Ref.Name {
			return false
		}
		return hasAll(p.Ref.Labels, want)
	})
	if err != nil {
		return nil, storeError(err)
	}
	if n == 0 && !req.Msg.GetAll() {
		return nil, fail(connect.CodeNotFound, "no policy matches; `hypha policy get` lists them")
	}
	a.observer.Agent.PolicyDeleted(req.Msg.GetLabels(), revision, n)
	a.log.Info("policy deleted", "policies", n, "revision", revision)
	return connect.NewResponse(&agentv1.DeletePolicyResponse{Revision: revision, Count: uint32(n)}), nil
}

func (a admin) AddEndpoint(ctx context.Context, req *connect.Request[agentv1.AddEndpointRequest]) (*connect.Response[agentv1.AddEndpointResponse], error) {
	if a.pods != nil {
		if err := a.pods.describe(ctx, req.Msg); err != nil {
			return nil, storeError(err)
		}
	}
	resp, err := a.server.AddEndpoint(ctx, req.Msg)
	if err != nil {
		a.refused.Add(1)
	}
	return reply(resp, err)
}

func (a admin) DeleteEndpoint(ctx context.Context, req *connect.Request[agentv1.DeleteEndpointRequest]) (*connect.Response[agentv1.DeleteEndpointResponse], error) {
	return reply(a.server.DeleteEndpoint(ctx, req.Msg))
}

func (a admin) CheckEndpoint(ctx context.Context, req *connect.Request[agentv1.CheckEndpointRequest]) (*connect.Response[agentv1.CheckEndpointResponse], error) {
	return reply(a.server.CheckEndpoint(ctx, req.Msg))
}

func (a admin) SweepEndpoints(ctx context.Context, req *connect.Request[agentv1.SweepEndpointsRequest]) (*connect.Response[agentv1.SweepEndpointsResponse], error) {
	return reply(a.server.SweepEndpoints(ctx, req.Msg))
}

func (a admin) UpdateEndpoint(ctx context.Context, req *connect.Request[agentv1.UpdateEndpointRequest]) (*connect.Response[agentv1.UpdateEndpointResponse], error) {
	return reply(a.server.UpdateEndpoint(ctx, req.Msg))
}

// UpdateConfig changes runtime options, all of the request or none. They last until the agent restarts.
func (a admin) UpdateConfig(ctx context.Context, req *connect.Request[agentv1.UpdateConfigRequest]) (*connect.Response[agentv1.UpdateConfigResponse], error) {
	next := map[string]string{}
	for name, value := range req.Msg.GetOptions() {
		norm, err := config.RuntimeValue(name, value)
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		next[norm.Name] = norm.Value
	}
	if err := a.reconfigure(ctx, next); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	out := &agentv1.UpdateConfigResponse{}
	a.optMu.Lock()
	defer a.optMu.Unlock()
	for i, o := range a.options {
		if v, ok := next[o.Name]; ok {
			a.options[i].Value, a.options[i].Source = v, "runtime"
			out.Changed = append(out.Changed, optionMessage(a.options[i]))
		}
	}
	return connect.NewResponse(out), nil
}

func (a admin) KVGet(ctx context.Context, req *connect.Request[agentv1.KVGetRequest]) (*connect.Response[agentv1.KVGetResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	out := &agentv1.KVGetResponse{}
	if req.Msg.GetPrefix() {
		list, err := kv.List(ctx, req.Msg.GetKey())
		if err != nil {
			return nil, storeError(err)
		}
		for _, pair := range list {
			out.Pairs = append(out.Pairs, &agentv1.KVPair{Key: pair.Key, Value: pair.Value, Revision: pair.Revision})
		}
		return connect.NewResponse(out), nil
	}
	pair, err := kv.Get(ctx, req.Msg.GetKey())
	if err != nil {
		return nil, storeError(err)
	}
	out.Pairs = []*agentv1.KVPair{{Key: pair.Key, Value: pair.Value, Revision: pair.Revision}}
	return connect.NewResponse(out), nil
}

func (a admin) KVSet(ctx context.Context, req *connect.Request[agentv1.KVSetRequest]) (*connect.Response[agentv1.KVSetResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	if req.Msg.GetKey() == "" {
		return nil, fail(connect.CodeInvalidArgument, "the key is empty")
	}
	if _, err := kv.Set(ctx, req.Msg.GetKey(), req.Msg.GetValue()); err != nil {
		return nil, storeError(err)
	}
	return connect.NewResponse(&agentv1.KVSetResponse{}), nil
}

func (a admin) KVDelete(ctx context.Context, req *connect.Request[agentv1.KVDeleteRequest]) (*connect.Response[agentv1.KVDeleteResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	if req.Msg.GetKey() == "" {
		return nil, fail(connect.CodeInvalidArgument, "the key is empty; to delete everything, name its prefixes")
	}
	n, err := kv.Delete(ctx, req.Msg.GetKey(), req.Msg.GetPrefix())
	if err != nil {
		return nil, storeError(err)
	}
	return connect.NewResponse(&agentv1.KVDeleteResponse{Deleted: n}), nil
}

// FlushMap empties a map that only caches.
func (a admin) FlushMap(_ context.Context, req *connect.Request[agentv1.FlushMapRequest]) (*connect.Response[agentv1.FlushMapResponse], error) {
	name, err := a.mapName(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	if name != maps.CT {
		return nil, fail(connect.CodeInvalidArgument, "map %s holds what the agent decided, or goes with %s: only that can be flushed", name, maps.CT)
	}
	n, err := a.maps.FlushConnections()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.FlushMapResponse{Deleted: uint64(n)}), nil
}
