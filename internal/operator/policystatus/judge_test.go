package policystatus

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/identity"
)

func TestJudge(t *testing.T) {
	f, err := identity.NewFilter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		`{endpointSelector: {}, ingress: [{}]}`:                                       "",
		`{endpointSelector: {matchLabel: {a: b}}, ingress: [{}]}`:                     "spec.endpointSelector.matchLabel: unknown field",
		`{endpointSelector: {}, ingress: [{fromCIDR: [nonsense]}, {fromCIDR: [no]}]}`: "spec.ingress[1].fromCIDR[0]",
	} {
		u := empty("CiliumNetworkPolicy")
		text := `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: ns, uid: u, resourceVersion: "7", labels: {a: b}}, spec: ` + spec + `, status: {conditions: []}}`
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		got, err := judge(u, f)
		if err != nil {
			t.Fatal(err)
		}
		kept := got.(*unstructured.Unstructured).Object
		why, _ := kept[fault].(string)
		if (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", spec, why, want)
		}
		if again, err := judge(got, f); err != nil || again != got {
			t.Errorf("judged twice: %v %v", again, err)
		}
		delete(kept, fault)
		delete(kept, caveat)
		if d := cmp.Diff(map[string]any{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "status": map[string]any{"conditions": []any{}},
			"metadata": map[string]any{"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"}}, kept); d != "" {
			t.Error(d)
		}
	}
}

func TestWith(t *testing.T) {
	then := metav1.Unix(1, 0)
	others := []ciliumv2.Condition{{Type: "Other", Status: "True"}, {Type: "Valid", Status: "False", Reason: "NotUnderstood", Message: "a", LastTransitionTime: then}}
	if out, same := with(others, verdict("a", "")); !same || len(out) != 2 {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(others, verdict("b", "")); same || len(out) != 2 || out[1].Message != "b" || out[1].LastTransitionTime != then {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(others, verdict("", "")); same || out[0] != others[0] || out[1].Status != "True" || out[1].LastTransitionTime == then || others[1].Status != "False" {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(nil, verdict("", "")); same || len(out) != 1 {
		t.Errorf("%+v %v", out, same)
	}
}

// TestHidden: a policy that asks for labels that are filtered is understood, and its author is told.
func TestHidden(t *testing.T) {
	const pod = "statefulset.kubernetes.io/pod-name"
	for _, x := range []struct {
		rules []string
		spec  string
		want  string
	}{
		{nil, `{endpointSelector: {matchLabels: {app: a}}, ingress: [{fromEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": shop}}]}, {fromEntities: [host]}]}`, ""},
		{nil, `{endpointSelector: {matchLabels: {` + pod + `: a-0}}, ingress: [{}]}`, "any:" + pod},
		{nil, `{endpointSelector: {}, egressDeny: [{toEndpoints: [{matchExpressions: [{key: "k8s:` + pod + `", operator: DoesNotExist}]}]}]}`, "k8s:" + pod},
		{nil, `{endpointSelector: {}, ingress: [{fromRequires: [{matchLabels: {pod-template-hash: a}}], fromEndpoints: [{}]}]}`, "any:pod-template-hash"},
		{nil, `{endpointSelector: {}, ingress: [{fromNodes: [{matchLabels: {kubernetes.io/hostname: a}}]}]}`, ""},
		{[]string{"k8s:app"}, `{endpointSelector: {matchLabels: {app: a}}, ingress: [{fromEndpoints: [{matchLabels: {tier: b}}]}]}`, "any:tier"},
		{[]string{`statefulset\.kubernetes\.io/pod-name`, ".*"}, `{endpointSelector: {matchLabels: {` + pod + `: a-0}}, ingress: [{}]}`, ""},
	} {
		f, err := identity.NewFilter(x.rules)
		if err != nil {
			t.Fatal(err)
		}
		u := empty("CiliumNetworkPolicy")
		if err := yaml.Unmarshal([]byte(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: ns}, spec: `+x.spec+`}`), &u.Object); err != nil {
			t.Fatal(err)
		}
		got, err := judge(u, f)
		if err != nil {
			t.Fatal(err)
		}
		kept := got.(*unstructured.Unstructured).Object
		bad, _ := kept[fault].(string)
		odd, _ := kept[caveat].(string)
		if bad != "" || (odd == "") != (x.want == "") || !strings.HasSuffix(odd, x.want) {
			t.Errorf("%s: fault %q, caveat %q, want %q", x.spec, bad, odd, x.want)
		}
		if c := verdict(bad, odd); c.Status != "True" || c.Message != odd {
			t.Errorf("%s: %+v", x.spec, c)
		}
	}
}
