package k8s

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/internal/control/policy/parse"
)

// What every part of the language becomes. Rules are compared as JSON, which is what an agent stores and reads back strictly.
func TestNetworkPolicy(t *testing.T) {
	const subject = `"endpointSelector":{"matchExpressions":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["ns"]}]}`
	deny := func(ingress, egress string) string {
		return `"enableDefaultDeny":{"ingress":` + ingress + `,"egress":` + egress + `}`
	}
	for name, c := range map[string]struct{ spec, want string }{
		"nothing said: no ingress": {`{podSelector: {}}`,
			`{` + subject + `,"ingress":[{}],` + deny("true", "false") + `}`},
		"types decide": {`{podSelector: {}, policyTypes: [Egress]}`,
			`{` + subject + `,"egress":[{}],` + deny("false", "true") + `}`},
		"egress rules close egress": {`{podSelector: {}, egress: [{}]}`,
			`{` + subject + `,"ingress":[{}],"egress":[{},{"toEntities":["all"]}],` + deny("true", "true") + `}`},
		"rules of a type that is not named are none": {`{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`,
			`{` + subject + `,"ingress":[{}],` + deny("true", "false") + `}`},
		"empty rule: everybody": {`{podSelector: {}, ingress: [{}]}`,
			`{` + subject + `,"ingress":[{},{"fromEntities":["all"]}],` + deny("true", "false") + `}`},
		"empty from: everybody, on a port": {`{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}`,
			`{` + subject + `,"ingress":[{},{"fromEntities":["all"],"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}],` + deny("true", "false") + `}`},
		"subject": {`{podSelector: {matchLabels: {b: "2", a: "1"}, matchExpressions: [{key: c, operator: NotIn, values: [x]}]}}`,
			`{"endpointSelector":{"matchExpressions":[{"key":"k8s:a","operator":"In","values":["1"]},{"key":"k8s:b","operator":"In","values":["2"]},` +
				`{"key":"k8s:c","operator":"NotIn","values":["x"]},{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["ns"]}]},"ingress":[{}],` + deny("true", "false") + `}`},
		"pods here, pods there, pods of some namespaces, blocks": {`{podSelector: {}, ingress: [{from: [
			{podSelector: {matchLabels: {a: "1"}}}, {namespaceSelector: {}}, {podSelector: {}},
			{namespaceSelector: {matchLabels: {team: x, kubernetes.io/metadata.name: other}}, podSelector: {matchLabels: {a: "1"}}},
			{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}`,
			`{` + subject + `,"ingress":[{},{"fromEndpoints":[` +
				`{"matchExpressions":[{"key":"k8s:a","operator":"In","values":["1"]},{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["ns"]}]},` +
				`{"matchExpressions":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"Exists"}]},` +
				`{"matchExpressions":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["ns"]}]},` +
				`{"matchExpressions":[{"key":"k8s:a","operator":"In","values":["1"]},{"key":"k8s:io.kubernetes.pod.namespace","operator":"Exists"},` +
				`{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["other"]},{"key":"k8s:io.cilium.k8s.namespace.labels.team","operator":"In","values":["x"]}]}]},` +
				`{"fromCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]}],` + deny("true", "false") + `}`},
		"a peer that is not known is nobody": {`{podSelector: {}, ingress: [{from: [{}]}]}`,
			`{` + subject + `,"ingress":[{}],` + deny("true", "false") + `}`},
		"ports": {`{podSelector: {}, ingress: [{ports: [{}, {protocol: UDP}, {port: web}, {port: 80, endPort: 90}, {port: 7, endPort: 7, protocol: SCTP}]}]}`,
			`{` + subject + `,"ingress":[{},{"fromEntities":["all"],"toPorts":[{"ports":[{"port":"0","protocol":"TCP"},{"port":"0","protocol":"UDP"},` +
				`{"port":"web","protocol":"TCP"},{"port":"80","endPort":90,"protocol":"TCP"},{"port":"7","protocol":"SCTP"}]}]}],` + deny("true", "false") + `}`},
		"egress peers": {`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "::/0"}}], ports: [{port: 53, protocol: UDP}]}]}`,
			`{` + subject + `,"egress":[{},{"toCIDRSet":[{"cidr":"::/0"}],"toPorts":[{"ports":[{"port":"53","protocol":"UDP"}]}]}],` + deny("false", "true") + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			p := NetworkPolicy(networkPolicy(t, c.spec))
			got, err := json.Marshal(p.Rules[0])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, string(got)); d != "" {
				t.Error(d)
			}
			stored(t, p)
		})
	}
}

func networkPolicy(t *testing.T, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name, np.UID = "ns", "p", "u"
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return np
}

// stored checks that the agent would read the policy back from where it keeps it.
func stored(t *testing.T, p parse.Policy) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back parse.Policy
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(p, back); d != "" {
		t.Error(d)
	}
}

func TestNetworkPolicyManyPorts(t *testing.T) {
	np := networkPolicy(t, `{podSelector: {}, ingress: [{ports: [`+strings.Repeat("{port: 1},", 1700)+`]}]}`)
	p := NetworkPolicy(np)
	stored(t, p)
	n := 0
	for _, m := range p.Rules[0].Ingress {
		for _, r := range m.ToPorts {
			n += len(r.Ports)
		}
	}
	if n != 1700 || len(p.Rules[0].Ingress) != 3 {
		t.Errorf("%d ports in %d members", n, len(p.Rules[0].Ingress))
	}
	if p.Key != "NetworkPolicy/ns/p" || p.Ref.Labels.Key() != "k8s:io.cilium.k8s.policy.derived-from=NetworkPolicy;k8s:io.cilium.k8s.policy.name=p;"+
		"k8s:io.cilium.k8s.policy.namespace=ns;k8s:io.cilium.k8s.policy.uid=u;" {
		t.Errorf("%s %s", p.Key, p.Ref.Labels.Key())
	}
}
