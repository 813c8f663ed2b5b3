package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/source/kvstore"
	"github.com/hypha-net/hypha/internal/source/state"
	"github.com/hypha-net/hypha/internal/table"
)

func (r reader) ListServices(context.Context, *connect.Request[agentv1.ListServicesRequest]) (*connect.Response[agentv1.ListServicesResponse], error) {
	_, _, refused := r.services.state()
	out := &agentv1.ListServicesResponse{}
	for id, v := range r.store.services.Snapshot().All() {
		out.Services = append(out.Services, serviceMessage(&v, refused[id]))
	}
	return connect.NewResponse(out), nil
}

func (r reader) GetService(_ context.Context, req *connect.Request[agentv1.GetServiceRequest]) (*connect.Response[agentv1.GetServiceResponse], error) {
	id := model.ServiceID(req.Msg.GetId())
	v, ok := r.store.services.Get(id)
	if !ok {
		return nil, fail(connect.CodeNotFound, "there is no service %d", id)
	}
	_, _, refused := r.services.state()
	return connect.NewResponse(&agentv1.GetServiceResponse{Service: serviceMessage(&v, refused[id])}), nil
}

// UpdateService judges a service by what is known of the cluster now and stores it.
func (a admin) UpdateService(ctx context.Context, req *connect.Request[agentv1.UpdateServiceRequest]) (*connect.Response[agentv1.UpdateServiceResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	s, err := serviceOf(req.Msg.GetService())
	if err == nil {
		err = a.services.judge(&s)
	}
	if err != nil {
		return nil, fail(connect.CodeInvalidArgument, "service refused: %w", err)
	}
	id, created, err := kv.Services().Put(ctx, state.Service{Service: s})
	if err != nil {
		return nil, serviceError(err)
	}
	s.ID = id
	a.services.wait(ctx, func(snap table.Snapshot[model.ServiceID, state.Service]) bool {
		v, ok := snap.Get(id)
		return ok && v.Equal(&s)
	})
	a.log.Info("service updated", "service", uint32(id), "frontend", s.Frontend.String(), "backends", len(s.Backends), "new", created)
	return connect.NewResponse(&agentv1.UpdateServiceResponse{Service: serviceMessage(&state.Service{Service: s}, nil), Created: created}), nil
}

// serviceError turns an error of the store's services into the API's.
func serviceError(err error) error {
	switch {
	case errors.Is(err, kvstore.ErrTaken):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, kvstore.ErrNotOurs):
		return fail(connect.CodePermissionDenied, "%w: change that file", err)
	}
	return storeError(err)
}

// DeleteService deletes one service, or all but those that come from the services file of a node which is a member.
func (a admin) DeleteService(ctx context.Context, req *connect.Request[agentv1.DeleteServiceRequest]) (*connect.Response[agentv1.DeleteServiceResponse], error) {
	kv, err := a.store.writable()
	if err != nil {
		return nil, err
	}
	snap := a.store.services.Snapshot()
	id := model.ServiceID(req.Msg.GetId())
	if (id == 0) == !req.Msg.GetAll() {
		return nil, fail(connect.CodeInvalidArgument, "give the number of one service, or all")
	}
	owned := map[string][]model.ServiceID{} // by owner
	out := &agentv1.DeleteServiceResponse{}
	for n, v := range snap.All() {
		switch {
		case id != 0 && n != id:
		case id == 0 && !a.gone(&v):
			out.Kept++
		case a.gone(&v):
			owned[v.Owner] = append(owned[v.Owner], n)
		default:
			owned[""] = append(owned[""], n) // refused there, with the reason
		}
	}
	if id != 0 && len(owned) == 0 {
		return nil, fail(connect.CodeNotFound, "there is no service %d", id)
	}
	for owner, ids := range owned {
		n, err := kv.Services().Delete(ctx, owner, ids...)
		out.Count += uint32(n)
		if err != nil {
			return nil, serviceError(err)
		}
		a.services.wait(ctx, func(snap table.Snapshot[model.ServiceID, state.Service]) bool {
			for _, id := range ids {
				if _, ok := snap.Get(id); ok {
					return false
				}
			}
			return true
		})
	}
	a.log.Info("services deleted", "count", out.GetCount())
	return connect.NewResponse(out), nil
}

// gone says whether nobody holds on to a service: it comes from the API, or from the file of a node that is no member any more.
func (a *Agent) gone(v *state.Service) bool {
	node := v.FileNode()
	if node == "" {
		return v.Owner == ""
	}
	_, member := a.store.nodes.Table().Get(node)
	return !member && node != a.cfg.NodeName
}

// serviceOf reads a service from the API.
func serviceOf(m *agentv1.Service) (s model.Service, err error) {
	bad := func(what string, ferr error) {
		if ferr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, ferr))
		}
	}
	var ferr error
	s = model.Service{ID: model.ServiceID(m.GetId()), Name: m.GetName(), Namespace: m.GetNamespace(), Affinity: time.Duration(m.GetAffinitySeconds()) * time.Second}
	if s.ID > kvstore.MaxServiceID {
		bad("id", fmt.Errorf("%d: want 1 to %d", s.ID, kvstore.MaxServiceID))
	}
	if m.GetType() != "" {
		s.Type, ferr = model.ParseServiceType(m.GetType())
		bad("type", ferr)
	}
	s.Frontend.Addr, s.Frontend.Port, s.Frontend.Proto, ferr = endOf(m.GetFrontend().GetIp(), m.GetFrontend().GetPort(), m.GetFrontend().GetProtocol(), model.ProtoTCP)
	bad("frontend", ferr)
	switch m.GetFrontend().GetScope() {
	case "", "external":
	case "internal":
		s.Frontend.Scope = model.ScopeInternal
	default:
		bad("frontend", fmt.Errorf("scope %q: want external or internal", m.GetFrontend().GetScope()))
	}
	for _, b := range m.GetBackends() {
		x := model.Backend{Node: b.GetNode(), Zone: b.GetZone(), Hints: model.NewZones(b.GetHints()...)}
		x.Addr, x.Port, x.Proto, ferr = endOf(b.GetIp(), b.GetPort(), b.GetProtocol(), s.Frontend.Proto)
		bad("backend", ferr)
		if b.GetState() != "" {
			x.State, ferr = model.ParseBackendState(b.GetState())
			bad("backend "+x.String(), ferr)
		}
		if x.Weight = uint16(b.GetWeight()); uint32(x.Weight) != b.GetWeight() {
			bad("backend "+x.String(), fmt.Errorf("weight %d: want 1 to 65535", b.GetWeight()))
		}
		s.Backends = append(s.Backends, x)
	}
	s.ExternalLocal, ferr = model.ParseTrafficPolicy(m.GetExternalTrafficPolicy())
	bad("external", ferr)
	s.InternalLocal, ferr = model.ParseTrafficPolicy(m.GetInternalTrafficPolicy())
	bad("internal", ferr)
	if s.HealthPort = uint16(m.GetHealthCheckNodePort()); uint32(s.HealthPort) != m.GetHealthCheckNodePort() {
		bad("health-check node port", fmt.Errorf("%d is no port", m.GetHealthCheckNodePort()))
	}
	for _, r := range m.GetSourceRanges() {
		p, ferr := netip.ParsePrefix(r)
		bad("source range", ferr)
		s.Ranges = append(s.Ranges, p)
	}
	switch m.GetSourceRangesPolicy() {
	case "", "allow":
	case "deny":
		s.RangesDeny = true
	default:
		bad("source ranges", fmt.Errorf("%q: want allow or deny", m.GetSourceRangesPolicy()))
	}
	s.Select, ferr = model.ParseSelection(m.GetSelection())
	bad("selection", ferr)
	s.Prefer, ferr = model.ParsePreference(m.GetTrafficDistribution())
	bad("traffic distribution", ferr)
	return s, err
}

func endOf(ip string, port uint32, protocol string, proto uint8) (netip.Addr, uint16, uint8, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return a, 0, 0, fmt.Errorf("%q is no IP address", ip)
	}
	if port > 65535 {
		return a, 0, 0, fmt.Errorf("%s: port %d: want 1 to 65535", ip, port)
	}
	if protocol != "" {
		if proto, err = model.ParseServiceProto(protocol); err != nil {
			return a, 0, 0, fmt.Errorf("%s: %w", ip, err)
		}
	}
	return a.Unmap(), uint16(port), proto, nil
}

// serviceMessage is a service for the API.
func serviceMessage(v *state.Service, refused error) *agentv1.Service {
	m := &agentv1.Service{Id: uint32(v.ID), Name: v.Name, Namespace: v.Namespace, Type: v.Type.String(), AffinitySeconds: uint32(v.Affinity / time.Second),
		Frontend:              &agentv1.Frontend{Ip: v.Frontend.Addr.String(), Port: uint32(v.Frontend.Port), Protocol: model.ServiceProtoName(v.Frontend.Proto), Scope: "external"},
		ExternalTrafficPolicy: model.TrafficPolicy(v.ExternalLocal), InternalTrafficPolicy: model.TrafficPolicy(v.InternalLocal), HealthCheckNodePort: uint32(v.HealthPort),
		SourceRanges: texts(v.Ranges), Selection: v.Select.String(), TrafficDistribution: v.Prefer.String(), Source: "api", SourceNode: v.FileNode()}
	if v.Frontend.Scope == model.ScopeInternal {
		m.Frontend.Scope = "internal"
	}
	if len(v.Ranges) > 0 {
		if m.SourceRangesPolicy = "allow"; v.RangesDeny {
			m.SourceRangesPolicy = "deny"
		}
	}
	if m.GetSourceNode() != "" {
		m.Source = "file"
	}
	if refused != nil {
		m.Refused = refused.Error()
	}
	for _, b := range v.Backends {
		m.Backends = append(m.Backends, &agentv1.Backend{Ip: b.Addr.String(), Port: uint32(b.Port), Protocol: model.ServiceProtoName(b.Proto), State: b.State.String(),
			Weight: uint32(b.Weight), Node: b.Node, Zone: b.Zone, Hints: b.Hints.List()})
	}
	return m
}
