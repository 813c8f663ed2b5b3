package parse

import (
	"fmt"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
)

// checkCluster reports what is well-formed and yet wrong with the spec of a ClusterNetworkPolicy.
func (d *decoder) checkCluster(n *node, path string, s *v1alpha2.ClusterSpec) {
	d.present(n, path, "tier", "priority", "subject")
	if n.get("tier") != nil && s.Tier != v1alpha2.TierAdmin && s.Tier != v1alpha2.TierBaseline {
		d.fail(path+".tier", "unknown tier %q; want %s or %s", s.Tier, v1alpha2.TierAdmin, v1alpha2.TierBaseline)
	}
	if s.Priority < 0 || s.Priority > v1alpha2.MaxPriority {
		d.fail(path+".priority", "%d: want 0..%d", s.Priority, v1alpha2.MaxPriority)
	}
	if subject := n.get("subject"); subject != nil {
		d.oneOf(subject, path+".subject", "namespaces", "pods")
		d.checkPods(subject, path+".subject", s.Subject.Namespaces, s.Subject.Pods)
	}
	d.atMost(path+".ingress", len(s.Ingress))
	for i, r := range s.Ingress {
		at := fmt.Sprintf("%s.ingress[%d]", path, i)
		rule := n.get("ingress").list[i]
		d.checkClusterRule(rule, at, "from", r.Name, r.Action, len(r.From), r.Protocols)
		for j, p := range r.From {
			peer, where := rule.get("from").list[j], fmt.Sprintf("%s.from[%d]", at, j)
			d.oneOf(peer, where, "namespaces", "pods")
			d.checkPods(peer, where, p.Namespaces, p.Pods)
		}
	}
	d.atMost(path+".egress", len(s.Egress))
	for i, r := range s.Egress {
		at := fmt.Sprintf("%s.egress[%d]", path, i)
		rule := n.get("egress").list[i]
		d.checkClusterRule(rule, at, "to", r.Name, r.Action, len(r.To), r.Protocols)
		for j, p := range r.To {
			d.checkEgressPeer(rule.get("to").list[j], fmt.Sprintf("%s.to[%d]", at, j), p)
		}
		d.checkNames(at, r)
	}
}

// present reports fields that are missing and must not be.
func (d *decoder) present(n *node, path string, fields ...string) {
	for _, f := range fields {
		if n.kind == kindMap && n.get(f) == nil {
			d.fail(path+"."+f, "missing")
		}
	}
}

// oneOf wants exactly one of the fields. One that is not known has been reported already.
func (d *decoder) oneOf(n *node, path string, fields ...string) {
	if n.kind == kindMap && len(n.keys) != 1 {
		d.fail(path, "want exactly one of %s", strings.Join(fields, ", "))
	}
}

func (d *decoder) atMost(path string, n int) {
	if n > v1alpha2.MaxItems {
		d.fail(path, "%d members, at most %d are possible", n, v1alpha2.MaxItems)
	}
}

func (d *decoder) checkClusterRule(n *node, path, word, name string, action v1alpha2.Action, peers int, protocols []v1alpha2.ClusterProtocol) {
	d.present(n, path, "action", word)
	if len(name) > v1alpha2.MaxName || !printable(name) {
		d.fail(path+".name", "want at most %d printable characters", v1alpha2.MaxName)
	}
	switch action {
	case v1alpha2.ActionAccept, v1alpha2.ActionDeny, v1alpha2.ActionPass:
	default:
		d.fail(path+".action", "unknown action %q; want %s, %s or %s", action, v1alpha2.ActionAccept, v1alpha2.ActionDeny, v1alpha2.ActionPass)
	}
	if list := n.get(word); list != nil && list.kind == kindList && peers == 0 {
		d.fail(path+"."+word, "empty; name a peer")
	}
	d.atMost(path+"."+word, peers)
	if protocols != nil && len(protocols) == 0 {
		d.fail(path+".protocols", "empty; leave it out to mean every protocol, or name one")
	}
	d.atMost(path+".protocols", len(protocols))
	for i, p := range protocols {
		d.checkProtocol(n.get("protocols").list[i], fmt.Sprintf("%s.protocols[%d]", path, i), p)
	}
}

func (d *decoder) checkPods(n *node, path string, namespaces *v2.LabelSelector, pods *v1alpha2.NamespacedPod) {
	if namespaces != nil {
		d.checkPlain(path+".namespaces", *namespaces)
	}
	if pods != nil {
		d.present(n.get("pods"), path+".pods", "podSelector")
		d.checkPlain(path+".pods.namespaceSelector", pods.NamespaceSelector)
		d.checkPlain(path+".pods.podSelector", pods.PodSelector)
	}
}

// checkPlain checks a selector in Kubernetes' own language, where keys have no source.
func (d *decoder) checkPlain(path string, s v2.LabelSelector) {
	d.checkSelector(path, s)
	for k := range s.MatchLabels {
		if strings.Contains(k, ":") {
			d.fail(fmt.Sprintf("%s.matchLabels[%q]", path, k), "key %q: a label of Kubernetes has no \":\"", k)
		}
	}
	for i, r := range s.MatchExpressions {
		if strings.Contains(r.Key, ":") {
			d.fail(fmt.Sprintf("%s.matchExpressions[%d].key", path, i), "key %q: a label of Kubernetes has no \":\"", r.Key)
		}
	}
}

func (d *decoder) checkEgressPeer(n *node, path string, p v1alpha2.EgressPeer) {
	d.oneOf(n, path, "namespaces", "pods", "nodes", "networks")
	d.checkPods(n, path, p.Namespaces, p.Pods)
	if p.Nodes != nil {
		d.checkPlain(path+".nodes", *p.Nodes)
	}
	if p.Networks != nil && len(p.Networks) == 0 {
		d.fail(path+".networks", "empty; name a prefix")
	}
	d.atMost(path+".networks", len(p.Networks))
	for i, s := range p.Networks {
		at := fmt.Sprintf("%s.networks[%d]", path, i)
		if _, err := v2.ParseCIDR(s); err != nil {
			d.fail(at, "%v", err)
		} else if !strings.Contains(s, "/") {
			d.fail(at, "%q has no length; write %s/32 or /128", s, s)
		}
	}
}

func (d *decoder) checkProtocol(n *node, path string, p v1alpha2.ClusterProtocol) {
	d.oneOf(n, path, "tcp", "udp", "sctp", "destinationNamedPort")
	for _, x := range []struct {
		name  string
		ports *v1alpha2.ProtocolPorts
	}{{"tcp", p.TCP}, {"udp", p.UDP}, {"sctp", p.SCTP}} {
		if x.ports == nil {
			continue
		}
		at := path + "." + x.name
		d.present(n.get(x.name), at, "destinationPort")
		port, pn := x.ports.DestinationPort, n.get(x.name).get("destinationPort")
		if port == nil || pn == nil {
			continue
		}
		at += ".destinationPort"
		d.oneOf(pn, at, "number", "range")
		if pn.get("number") != nil && (port.Number < 1 || port.Number > 65535) {
			d.fail(at+".number", "%d: want 1..65535", port.Number)
		}
		if r := port.Range; r != nil {
			d.present(pn.get("range"), at+".range", "start", "end")
			if r.Start < 1 || r.End > 65535 || r.Start >= r.End {
				d.fail(at+".range", "%d..%d: want a range within 1..65535 that goes up", r.Start, r.End)
			}
		}
	}
	if n.get("destinationNamedPort") == nil {
		return
	}
	if _, named, err := (v2.PortProtocol{Port: p.DestinationNamedPort}).Number(); err != nil || !named {
		d.fail(path+".destinationNamedPort", "%q is not a port's name (1 to 15 letters, digits, single hyphens)", p.DestinationNamedPort)
	}
}

// checkNames: nodes and networks have no names for their ports.
func (d *decoder) checkNames(path string, r v1alpha2.ClusterEgressRule) {
	for i, p := range r.Protocols {
		for _, to := range r.To {
			if p.DestinationNamedPort != "" && (to.Nodes != nil || to.Networks != nil) {
				d.fail(fmt.Sprintf("%s.protocols[%d].destinationNamedPort", path, i), "nodes and networks have no named ports; write a rule for each")
			}
		}
	}
}
