package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
)

var protocols = map[string]uint8{"": 6, "TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPV4": 1, "ICMPV6": 58}

// TracePolicy answers from the engine, so from the same lists as the datapath.
func (r reader) TracePolicy(_ context.Context, req *connect.Request[agentv1.TracePolicyRequest]) (*connect.Response[agentv1.TracePolicyResponse], error) {
	q := policy.Query{Port: uint16(req.Msg.GetPort()), PortName: req.Msg.GetPortName()}
	if req.Msg.GetPort() > 65535 {
		return nil, fail(connect.CodeInvalidArgument, "port %d is greater than 65535", req.Msg.GetPort())
	}
	var ok bool
	if q.Proto, ok = protocols[strings.ToUpper(req.Msg.GetProtocol())]; !ok {
		return nil, fail(connect.CodeInvalidArgument, "protocol %q is none of TCP, UDP, SCTP, ICMP, ICMPv6", req.Msg.GetProtocol())
	}
	var err error
	var srcAway, dstAway bool
	if q.Source, srcAway, err = r.peer(req.Msg.GetSource()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("source: %w", err))
	}
	if q.Destination, dstAway, err = r.peer(req.Msg.GetDestination()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("destination: %w", err))
	}
	// The address map knows the prefixes of policies of workloads that live here. Where the other end is elsewhere, an
	// outside address is judged by itself.
	if q.Source.Addr.IsValid() && q.Destination.Endpoint == 0 {
		q.Source.Identity = 0
	}
	if q.Destination.Addr.IsValid() && q.Source.Endpoint == 0 {
		q.Destination.Identity = 0
	}
	res, revision, err := r.policies.Trace(q)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	audit, err := r.maps.Audit()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	if audit {
		auditNode(&res, srcAway, dstAway)
	}
	return connect.NewResponse(&agentv1.TracePolicyResponse{Verdict: verdictName(res.Verdict), Egress: judgement(res.Egress), Ingress: judgement(res.Ingress),
		SourceLabels: res.Source.Strings(), DestinationLabels: res.Destination.Strings(), Revision: revision}), nil
}

// auditNode is what this node's audit mode makes of a trace: the kernel asks for it after the lists, and another node for
// its own.
func auditNode(res *policy.TraceResult, srcAway, dstAway bool) {
	res.Verdict = model.VerdictAllow
	for _, d := range []struct {
		j    *policy.Judgement
		away bool
	}{{res.Egress, srcAway}, {res.Ingress, dstAway}} {
		if d.j == nil {
			continue
		}
		if d.j.Verdict == model.VerdictDeny && !d.away {
			d.j.Verdict |= model.VerdictAudit
			d.j.Log = append(d.j.Log, "policy-audit-mode is on: passes, and is reported")
		}
		if d.j.Verdict != model.VerdictAllow && res.Verdict != model.VerdictDeny {
			res.Verdict = d.j.Verdict
		}
	}
}

func verdictName(v uint8) string {
	switch {
	case v&model.VerdictAudit != 0:
		return "audit"
	case v == model.VerdictAllow:
		return "allowed"
	case v == model.VerdictRedirect:
		return "redirected"
	}
	return "denied"
}

func judgement(j *policy.Judgement) *agentv1.TraceVerdict {
	if j == nil {
		return nil
	}
	v := &agentv1.TraceVerdict{Verdict: verdictName(j.Verdict), Rule: uint32(j.Rule.ID), RuleText: j.Rule.Text, Section: j.Rule.Section,
		Implicit: j.Rule.Implicit, Log: j.Log}
	for _, p := range j.Rule.Policies {
		v.Policies = append(v.Policies, policyName(p))
	}
	return v
}

// policyName is how people name a policy: namespace/name, or its labels where it has no name.
func policyName(p model.PolicyRef) string {
	switch {
	case p.Name != "" && p.Namespace != "":
		return p.Namespace + "/" + p.Name
	case p.Name != "":
		return p.Name
	}
	return strings.Join(p.Labels.Strings(), ",")
}

// peer finds whom a request means, and whether that is a workload of another node. Addresses and pods of the cluster
// become what they are; others are the outside.
func (r reader) peer(p *agentv1.Peer) (_ policy.Peer, away bool, _ error) {
	switch {
	case p.GetEndpoint() != 0:
		if _, ok := r.endpoints.Table().Get(uint16(p.GetEndpoint())); !ok || p.GetEndpoint() > 65535 {
			return policy.Peer{}, false, fmt.Errorf("no endpoint %d on this node", p.GetEndpoint())
		}
		return policy.Peer{Endpoint: uint16(p.GetEndpoint())}, false, nil
	case p.GetIdentity() != 0:
		return policy.Peer{Identity: model.IdentityID(p.GetIdentity())}, false, nil
	case p.GetIp() != "":
		return r.peerAddr(p.GetIp())
	case p.GetPod() != "":
		return r.peerPod(p.GetPod())
	case len(p.GetLabels()) > 0:
		// A label without a source is a workload's own; a pod has those under "k8s".
		ls, err := model.ParseLabels(p.GetLabels(), model.SourceK8s)
		return policy.Peer{Labels: workloadLabels(ls, r.cfg.ClusterName)}, false, err
	}
	return policy.Peer{}, false, fmt.Errorf("name it by endpoint, identity, IP, pod or labels")
}

// workloadLabels are the labels of a hypothetical workload: like a real one it is of the cluster and of some namespace.
// What is no workload (reserved:world, cidr:...) stays as it is.
func workloadLabels(ls model.Labels, cluster string) model.Labels {
	all := slices.Clone(ls)
	for _, l := range ls {
		if slices.Contains([]string{model.SourceReserved, model.SourceCIDR, model.SourceCIDRGroup, model.SourceFQDN, model.SourceNode}, l.Source) {
			return ls
		}
	}
	for key, value := range map[string]string{model.KeyNamespace: "default", model.KeyCluster: cluster} {
		if _, ok := ls.Get(model.SourceAny, key); !ok {
			all = append(all, model.Label{Source: model.SourceK8s, Key: key, Value: value})
		}
	}
	return model.NewLabels(all...)
}

func (r reader) peerAddr(s string) (_ policy.Peer, away bool, _ error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return policy.Peer{}, false, fmt.Errorf("%q is no IP address", s)
	}
	ip = ip.Unmap()
	if e, ok := r.names.endpoint(ip); ok {
		return policy.Peer{Endpoint: e.ID}, false, nil
	}
	row, ok, err := r.maps.LookupIP(ip)
	if err != nil {
		return policy.Peer{}, false, err
	}
	if !ok || row.Identity == model.IdentityUnknown {
		return policy.Peer{}, false, fmt.Errorf("%s has no identity here: its packets are dropped", ip)
	}
	_, away = r.store.addresses.Get(netip.PrefixFrom(ip, ip.BitLen()))
	found := policy.Peer{Identity: row.Identity}
	switch row.Identity {
	case model.IdentityWorld, model.IdentityWorldIPv4, model.IdentityWorldIPv6:
		found.Addr = ip
	default:
		if row.Identity&model.IdentityScopeMask == model.IdentityScopeLocal {
			found.Addr = ip
		}
	}
	return found, away, nil
}

func (r reader) peerPod(s string) (_ policy.Peer, away bool, _ error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = "default", s
	}
	for _, e := range r.endpoints.Table().Snapshot().All() {
		if e.Name == name && e.Namespace == ns {
			return policy.Peer{Endpoint: e.ID}, false, nil
		}
	}
	for _, e := range r.store.addresses.Snapshot().All() {
		if e.Name == name && e.Namespace == ns {
			return policy.Peer{Identity: e.Identity}, true, nil
		}
	}
	return policy.Peer{}, false, fmt.Errorf("no pod %s/%s in the cluster (for what is no pod: an address, labels as id=app1, or reserved:%s)", ns, name, name)
}

// ListSelectors lists the peer selectors of the policies in force.
func (r reader) ListSelectors(context.Context, *connect.Request[agentv1.ListSelectorsRequest]) (*connect.Response[agentv1.ListSelectorsResponse], error) {
	out := &agentv1.ListSelectorsResponse{}
	for _, s := range r.policies.Selectors() {
		m := &agentv1.Selector{Selector: s.Selector, Users: uint32(s.Users)}
		for _, id := range s.Identities {
			m.Identities = append(m.Identities, uint32(id))
		}
		for _, p := range s.Policies {
			m.Policies = append(m.Policies, policyName(p))
		}
		out.Selectors = append(out.Selectors, m)
	}
	return connect.NewResponse(out), nil
}

// Trace asks the engine; revision is that of the policy it answered from.
func (p *policies) Trace(q policy.Query) (policy.TraceResult, uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	res, err := p.engine.Trace(q)
	return res, p.Revision(), err
}

// Selectors are the peer selectors of the policies.
func (p *policies) Selectors() []policy.SelectorInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.engine.Selectors()
}
