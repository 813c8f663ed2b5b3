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
	src, err := r.peer(req.Msg.GetSource())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("source: %w", err))
	}
	dst, err := r.peer(req.Msg.GetDestination())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("destination: %w", err))
	}
	v6 := strings.EqualFold(req.Msg.GetProtocol(), "ICMPv6") || src.Addr.Is6() || dst.Addr.Is6()
	src.locate(v6)
	dst.locate(v6)
	// The address map knows the prefixes of policies of workloads that live here. Where the other end is elsewhere, an
	// outside address is judged by itself.
	if src.outside && dst.Endpoint == 0 {
		src.Identity = 0
	}
	if dst.outside && src.Endpoint == 0 {
		dst.Identity = 0
	}
	q.Source, q.Destination = src.Peer, dst.Peer
	res, revision, err := r.policies.Trace(q)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	audit, err := r.maps.Audit()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	if audit {
		auditNode(&res, src.away, dst.away)
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

// end is one end of a trace.
type end struct {
	policy.Peer
	addrs   []netip.Addr // of the workload that it is
	away    bool         // a workload of another node
	outside bool
}

// locate chooses one of a workload's addresses, where none was given: policies may have blocks of addresses.
func (e *end) locate(v6 bool) {
	if i := slices.IndexFunc(e.addrs, func(a netip.Addr) bool { return a.Is6() == v6 }); i >= 0 && !e.Addr.IsValid() {
		e.Addr = e.addrs[i]
	}
	if len(e.addrs) > 0 && !e.Addr.IsValid() {
		e.Addr = e.addrs[0]
	}
}

// peer finds whom a request means. Addresses and pods of the cluster become what they are; others are the outside.
func (r reader) peer(p *agentv1.Peer) (e end, err error) {
	if p.GetIp() != "" {
		if e.Addr, err = netip.ParseAddr(p.GetIp()); err != nil {
			return end{}, fmt.Errorf("%q is no IP address", p.GetIp())
		}
		e.Addr = e.Addr.Unmap()
	}
	switch {
	case p.GetEndpoint() != 0:
		row, ok := r.endpoints.Table().Get(uint16(p.GetEndpoint()))
		if !ok || p.GetEndpoint() > 65535 {
			return end{}, fmt.Errorf("no endpoint %d on this node", p.GetEndpoint())
		}
		e.Endpoint, e.addrs = row.ID, row.Addrs()
	case p.GetIdentity() != 0:
		e.Identity = model.IdentityID(p.GetIdentity())
	case p.GetPod() != "":
		return r.peerPod(p.GetPod())
	case len(p.GetLabels()) > 0:
		// A label without a source is a workload's own; a pod has those under "k8s".
		ls, err := model.ParseLabels(p.GetLabels(), model.SourceK8s)
		if err != nil {
			return end{}, err
		}
		e.Labels = workloadLabels(ls, r.cfg.ClusterName)
	case e.Addr.IsValid():
		return r.peerAddr(e.Addr)
	default:
		return end{}, fmt.Errorf("name it by endpoint, identity, IP, pod or labels")
	}
	return e, nil
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

func (r reader) peerAddr(ip netip.Addr) (end, error) {
	if e, ok := r.names.endpoint(ip); ok {
		return end{Peer: policy.Peer{Endpoint: e.ID, Addr: ip}}, nil
	}
	row, ok, err := r.maps.LookupIP(ip)
	if err != nil {
		return end{}, err
	}
	if !ok || row.Identity == model.IdentityUnknown {
		return end{}, fmt.Errorf("%s has no identity here: its packets are dropped", ip)
	}
	found := end{Peer: policy.Peer{Identity: row.Identity, Addr: ip}}
	_, found.away = r.store.addresses.Get(netip.PrefixFrom(ip, ip.BitLen()))
	switch row.Identity {
	case model.IdentityWorld, model.IdentityWorldIPv4, model.IdentityWorldIPv6:
		found.outside = true
	default:
		found.outside = row.Identity&model.IdentityScopeMask == model.IdentityScopeLocal
	}
	return found, nil
}

func (r reader) peerPod(s string) (end, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = "default", s
	}
	for _, e := range r.endpoints.Table().Snapshot().All() {
		if e.Name == name && e.Namespace == ns {
			return end{Peer: policy.Peer{Endpoint: e.ID}, addrs: e.Addrs()}, nil
		}
	}
	found := end{away: true}
	for _, e := range r.store.addresses.Snapshot().All() {
		if e.Name == name && e.Namespace == ns {
			found.Identity = e.Identity
			found.addrs = append(found.addrs, e.Prefix.Addr())
		}
	}
	if found.Identity != model.IdentityUnknown {
		return found, nil
	}
	return end{}, fmt.Errorf("no pod %s/%s in the cluster (for what is no pod: an address, labels as id=app1, or reserved:%s)", ns, name, name)
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
