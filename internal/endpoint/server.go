package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/model"
)

// Server answers the agent API's calls about endpoints. Its errors are *connect.Error.
type Server struct {
	Manager *Manager
	// Enforced says whether an endpoint is default-deny in each direction; nil: not known.
	Enforced func(id uint16) (ingress, egress bool)
}

// AddEndpoint attaches a workload.
func (s *Server) AddEndpoint(ctx context.Context, req *agentv1.AddEndpointRequest) (*agentv1.AddEndpointResponse, error) {
	spec := Spec{
		ContainerID: req.GetContainerId(), NetNS: req.GetNetns(), IfName: req.GetInterface(), Network: req.GetNetwork(),
		Name: req.GetName(), Namespace: req.GetNamespace(), Labels: req.GetLabels(), MAC: req.GetMac(),
		IPv4Pool: req.GetIpv4Pool(), IPv6Pool: req.GetIpv6Pool(),
	}
	if req.GetMtu() > maxMTU {
		return nil, code(fmt.Errorf("%w: MTU %d", ErrInvalid, req.GetMtu()))
	}
	spec.MTU = int(req.GetMtu())
	var err error
	if spec.IPv4, err = wished(req.GetIpv4()); err != nil {
		return nil, code(err)
	}
	if spec.IPv6, err = wished(req.GetIpv6()); err != nil {
		return nil, code(err)
	}
	for _, p := range req.GetNamedPorts() {
		proto, ok := protoNumber(p.GetProtocol())
		if !ok || p.GetPort() > 65535 {
			return nil, code(fmt.Errorf("%w: port %q: want a number and TCP, UDP or SCTP", ErrInvalid, p.GetName()))
		}
		spec.NamedPorts = append(spec.NamedPorts, model.NamedPort{Name: p.GetName(), Port: uint16(p.GetPort()), Proto: proto})
	}
	row, err := s.Manager.Add(ctx, spec)
	if err != nil {
		return nil, code(err)
	}
	return s.attachment(row, spec.MTU), nil
}

func (s *Server) attachment(row model.Endpoint, mtu int) *agentv1.AddEndpointResponse {
	m := s.Manager
	out := &agentv1.AddEndpointResponse{Endpoint: s.Message(row), HostMac: row.HostMAC, Mtu: uint32(m.mtu(mtu))}
	add := func(gw netip.Addr, all string) {
		out.Routes = append(out.Routes,
			&agentv1.Route{Destination: netip.PrefixFrom(gw, gw.BitLen()).String()},
			&agentv1.Route{Destination: all, Gateway: gw.String()})
	}
	if row.IPv4.IsValid() && m.cfg.Gateway4.IsValid() {
		out.Gateway4 = m.cfg.Gateway4.String()
		add(m.cfg.Gateway4, "0.0.0.0/0")
	}
	if row.IPv6.IsValid() && m.cfg.Gateway6.IsValid() {
		out.Gateway6 = m.cfg.Gateway6.String()
		add(m.cfg.Gateway6, "::/0")
	}
	return out
}

// DeleteEndpoint detaches a workload, named by attachment or by number.
func (s *Server) DeleteEndpoint(ctx context.Context, req *agentv1.DeleteEndpointRequest) (*agentv1.DeleteEndpointResponse, error) {
	var found bool
	var err error
	switch {
	case req.GetId() > 65535 || req.GetId() != 0 && req.GetContainerId() != "":
		err = fmt.Errorf("%w: want a container id and an interface, or an endpoint number", ErrInvalid)
	case req.GetId() != 0:
		found, err = s.Manager.DeleteID(ctx, uint16(req.GetId()))
	default:
		found, err = s.Manager.Delete(ctx, Key{req.GetContainerId(), req.GetInterface()})
	}
	if err != nil {
		return nil, code(err)
	}
	return &agentv1.DeleteEndpointResponse{Found: found}, nil
}

// CheckEndpoint fails unless an attachment is as it was made. Addresses may carry a prefix length.
func (s *Server) CheckEndpoint(ctx context.Context, req *agentv1.CheckEndpointRequest) (*agentv1.CheckEndpointResponse, error) {
	var addrs []netip.Addr
	for _, a := range req.GetAddresses() {
		bare, _, _ := strings.Cut(a, "/")
		addr, err := netip.ParseAddr(bare)
		if err != nil {
			return nil, code(fmt.Errorf("%w: %w", ErrInvalid, err))
		}
		addrs = append(addrs, addr)
	}
	if err := s.Manager.Check(ctx, Key{req.GetContainerId(), req.GetInterface()}, req.GetNetns(), addrs); err != nil {
		return nil, code(err)
	}
	return &agentv1.CheckEndpointResponse{}, nil
}

// SweepEndpoints detaches a CNI network's endpoints that are not valid any more.
func (s *Server) SweepEndpoints(ctx context.Context, req *agentv1.SweepEndpointsRequest) (*agentv1.SweepEndpointsResponse, error) {
	valid := make([]Key, 0, len(req.GetValid()))
	for _, a := range req.GetValid() {
		valid = append(valid, Key{a.GetContainerId(), a.GetInterface()})
	}
	deleted, err := s.Manager.Sweep(ctx, req.GetNetwork(), valid)
	if err != nil {
		return nil, code(err)
	}
	out := &agentv1.SweepEndpointsResponse{}
	for _, k := range deleted {
		out.Deleted = append(out.Deleted, &agentv1.Attachment{ContainerId: k.ContainerID, Interface: k.IfName})
	}
	return out, nil
}

// UpdateEndpoint changes labels and audit mode.
func (s *Server) UpdateEndpoint(ctx context.Context, req *agentv1.UpdateEndpointRequest) (*agentv1.UpdateEndpointResponse, error) {
	if req.GetId() > 65535 {
		return nil, code(fmt.Errorf("endpoint %d: %w", req.GetId(), ErrNotFound))
	}
	row, err := s.Manager.Update(ctx, uint16(req.GetId()), Change{AddLabels: req.GetAddLabels(), DeleteLabels: req.GetDeleteLabels(), Audit: req.Audit})
	if err != nil {
		return nil, code(err)
	}
	return &agentv1.UpdateEndpointResponse{Endpoint: s.Message(row)}, nil
}

// ListEndpoints returns the endpoints that a selector names (see Manager.List).
func (s *Server) ListEndpoints(_ context.Context, req *agentv1.ListEndpointsRequest) (*agentv1.ListEndpointsResponse, error) {
	rows, err := s.Manager.List(req.GetSelector())
	if err != nil {
		return nil, code(err)
	}
	out := &agentv1.ListEndpointsResponse{}
	for _, r := range rows {
		out.Endpoints = append(out.Endpoints, s.Message(r))
	}
	return out, nil
}

// EndpointLog is what happened to an endpoint.
func (s *Server) EndpointLog(_ context.Context, req *agentv1.EndpointLogRequest) (*agentv1.EndpointLogResponse, error) {
	if req.GetId() > 65535 {
		return nil, code(fmt.Errorf("endpoint %d: %w", req.GetId(), ErrNotFound))
	}
	log, err := s.Manager.Log(uint16(req.GetId()))
	if err != nil {
		return nil, code(err)
	}
	out := &agentv1.EndpointLogResponse{}
	for _, l := range log {
		e := &agentv1.EndpointLogEntry{Time: timestamppb.New(l.Time), State: string(l.State), Code: "OK", Message: l.Message}
		if l.Failed {
			e.Code = "Failure"
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// Message is a row as the API shows it.
func (s *Server) Message(e model.Endpoint) *agentv1.Endpoint {
	out := &agentv1.Endpoint{
		Id: uint32(e.ID), Name: e.Name, Namespace: e.Namespace, ContainerId: e.ContainerID, Interface: e.IfName,
		HostInterface: e.HostIfName, Netns: e.NetNS, Mac: e.MAC, Labels: e.Labels.Strings(), Identity: uint32(e.Identity),
		State: string(e.State), Audit: e.Audit, PolicyRevision: e.PolicyRev, PolicySet: e.PolicySet, Created: timestamppb.New(e.Created),
		Ipv4Pool: e.IPv4Pool, Ipv6Pool: e.IPv6Pool,
	}
	if e.IPv4.IsValid() {
		out.Ipv4 = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		out.Ipv6 = e.IPv6.String()
	}
	for _, p := range e.NamedPorts {
		out.NamedPorts = append(out.NamedPorts, &agentv1.NamedPort{Name: p.Name, Port: uint32(p.Port), Protocol: protoName(p.Proto)})
	}
	if s.Enforced != nil {
		out.IngressEnforced, out.EgressEnforced = s.Enforced(e.ID)
	}
	return out
}

// code says what kind of failure it was.
func code(err error) error {
	c := connect.CodeInternal
	switch {
	case errors.Is(err, ErrInvalid):
		c = connect.CodeInvalidArgument
	case errors.Is(err, ErrConflict):
		c = connect.CodeAlreadyExists
	case errors.Is(err, ErrNotFound), errors.Is(err, fs.ErrNotExist):
		c = connect.CodeNotFound
	case errors.Is(err, ErrBroken):
		c = connect.CodeFailedPrecondition
	case errors.Is(err, ErrNotReady):
		c = connect.CodeUnavailable
	case errors.Is(err, ErrFull):
		c = connect.CodeResourceExhausted
	case errors.Is(err, context.DeadlineExceeded):
		c = connect.CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		c = connect.CodeCanceled
	}
	return connect.NewError(c, err)
}

func wished(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return a, nil
}

var protoNames = map[uint8]string{protoTCP: "TCP", protoUDP: "UDP", protoSCTP: "SCTP"}

func protoName(n uint8) string { return protoNames[n] }

// protoNumber reads a protocol's name; none is TCP.
func protoNumber(s string) (uint8, bool) {
	if s == "" {
		return protoTCP, true
	}
	for n, name := range protoNames {
		if strings.EqualFold(s, name) {
			return n, true
		}
	}
	return 0, false
}
