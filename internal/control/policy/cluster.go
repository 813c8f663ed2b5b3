package policy

import (
	"fmt"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// cluster compiles a ClusterNetworkPolicy: one rule for its subject, whose entries are asked in order.
func (c *compiler) cluster(cp *compiled) error {
	s := cp.policy.Cluster
	r := &rule{policy: cp, subject: podTerm(s.Subject.Namespaces, s.Subject.Pods).reqs}
	for i, in := range s.Ingress {
		peers := make([]v1alpha2.EgressPeer, len(in.From))
		for j, p := range in.From {
			peers[j] = v1alpha2.EgressPeer{Namespaces: p.Namespaces, Pods: p.Pods}
		}
		if err := c.clusterRule(r, model.Ingress, i, clusterRule{in.Name, in.Action, peers, in.Protocols}); err != nil {
			return fmt.Errorf("ingress[%d]: %w", i, err)
		}
	}
	for i, out := range s.Egress {
		if err := c.clusterRule(r, model.Egress, i, clusterRule{out.Name, out.Action, out.To, out.Protocols}); err != nil {
			return fmt.Errorf("egress[%d]: %w", i, err)
		}
	}
	cp.rules = []*rule{r}
	return nil
}

// clusterRule is an ingress or egress rule, direction aside.
type clusterRule struct {
	name      string
	action    v1alpha2.Action
	peers     []v1alpha2.EgressPeer
	protocols []v1alpha2.ClusterProtocol
}

func (c *compiler) clusterRule(r *rule, dir model.Direction, i int, in clusterRule) error {
	p := &r.policy.policy
	section := fmt.Sprintf("%s[%d]", dir, i)
	e := &entry{dir: dir, audit: p.Audit, rank: rank{p.Tier(), p.Cluster.Priority, p.Key, i},
		place: p.Key + "|" + section}
	switch in.action {
	case v1alpha2.ActionAccept:
	case v1alpha2.ActionDeny:
		e.deny = true
	case v1alpha2.ActionPass:
		e.pass = true
	default:
		return fmt.Errorf("unknown action %q", in.action)
	}
	var terms []term
	for _, peer := range in.peers {
		ts, err := clusterTerms(peer)
		if err != nil {
			return err
		}
		for _, t := range ts {
			r.selectors = append(r.selectors, shown{text: t.String(), one: newPeers([]term{t})})
		}
		terms = append(terms, ts...)
	}
	if len(terms) == 0 {
		return fmt.Errorf("no peer")
	}
	e.peers = newPeers(terms)
	var err error
	if e.ports, err = clusterPorts(in.protocols); err != nil {
		return err
	}
	e.rule = c.ids.user(e.place, model.RuleRef{Policies: []model.PolicyRef{p.Ref}, Section: section, Tier: e.rank.tier,
		Ingress: dir == model.Ingress, Deny: e.deny, Text: clusterText(p, section, in)})
	e.content = e.describe()
	r.entries = append(r.entries, e)
	return nil
}

func clusterText(p *parse.Policy, section string, in clusterRule) string {
	s := fmt.Sprintf("tier %s, priority %d, %s %s", p.Tier(), p.Cluster.Priority, name(p.Ref, p.Key), section)
	if in.name != "" {
		s += fmt.Sprintf(" %q", in.name)
	}
	if in.action == v1alpha2.ActionPass {
		s += " (pass)"
	}
	if p.Audit {
		s += " (audit)"
	}
	return s
}

func clusterTerms(p v1alpha2.EgressPeer) ([]term, error) {
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		return []term{podTerm(p.Namespaces, p.Pods)}, nil
	case p.Nodes != nil:
		// The node itself is a node too, and perhaps one without labels.
		reqs := requirements(*p.Nodes, model.SourceNode)
		own := append(requirements(*p.Nodes, model.SourceNode), requirement{source: model.SourceReserved, key: "host", op: v2.OpExists})
		return []term{{kind: termNode, reqs: reqs}, {reqs: canonical(own)}}, nil
	}
	var out []term
	for _, s := range p.Networks {
		prefix, err := v2.ParseCIDR(s)
		if err != nil {
			return nil, err
		}
		t, _ := cidrTerm(prefix, nil, true)
		out = append(out, t)
	}
	return out, nil
}

// podTerm selects workloads by their namespace, or by that and their labels. Who has no namespace is no pod: node, world
// and what is reserved are never meant.
func podTerm(namespaces *v2.LabelSelector, pods *v1alpha2.NamespacedPod) term {
	var reqs []requirement
	if pods != nil {
		namespaces = &pods.NamespaceSelector
		reqs = requirements(pods.PodSelector, model.SourceK8s)
	}
	for _, r := range requirements(*namespaces, model.SourceK8s) {
		if r.key == v1alpha2.KeyNamespaceName {
			r.key = model.KeyNamespace
		} else {
			r.key = model.KeyNamespaceLabels + "." + r.key
		}
		reqs = append(reqs, r)
	}
	reqs = append(reqs, requirement{source: model.SourceK8s, key: model.KeyNamespace, op: v2.OpExists})
	return term{reqs: canonical(reqs)}
}

// clusterPorts are nil for every protocol.
func clusterPorts(in []v1alpha2.ClusterProtocol) ([]portSpec, error) {
	var out []portSpec
	for _, p := range in {
		if p.DestinationNamedPort != "" {
			for _, proto := range []uint8{protoTCP, protoUDP, protoSCTP} {
				out = append(out, portSpec{proto: proto, name: strings.ToLower(p.DestinationNamedPort)})
			}
			continue
		}
		for _, x := range []struct {
			proto uint8
			ports *v1alpha2.ProtocolPorts
		}{{protoTCP, p.TCP}, {protoUDP, p.UDP}, {protoSCTP, p.SCTP}} {
			if x.ports == nil {
				continue
			}
			s, err := clusterPort(x.proto, x.ports.DestinationPort)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	if len(in) > 0 && len(out) == 0 {
		return nil, fmt.Errorf("protocols without any port")
	}
	return out, nil
}

func clusterPort(proto uint8, p *v1alpha2.Port) (portSpec, error) {
	if p == nil {
		return portSpec{}, fmt.Errorf("no destination port")
	}
	lo, hi := p.Number, p.Number
	if p.Range != nil {
		lo, hi = p.Range.Start, p.Range.End
	}
	if lo < 1 || hi > portMax || lo > hi {
		return portSpec{}, fmt.Errorf("ports %d..%d", lo, hi)
	}
	return portSpec{proto: proto, lo: uint16(lo), hi: uint16(hi)}, nil
}
