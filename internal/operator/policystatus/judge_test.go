package policystatus

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
)

func TestJudge(t *testing.T) {
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
		got, err := judge(u)
		if err != nil {
			t.Fatal(err)
		}
		kept := got.(*unstructured.Unstructured).Object
		why, _ := kept[fault].(string)
		if (why == "") != (want == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", spec, why, want)
		}
		if again, err := judge(got); err != nil || again != got {
			t.Errorf("judged twice: %v %v", again, err)
		}
		delete(kept, fault)
		if d := cmp.Diff(map[string]any{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "status": map[string]any{"conditions": []any{}},
			"metadata": map[string]any{"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"}}, kept); d != "" {
			t.Error(d)
		}
	}
}

func TestWith(t *testing.T) {
	then := metav1.Unix(1, 0)
	others := []ciliumv2.Condition{{Type: "Other", Status: "True"}, {Type: "Valid", Status: "False", Reason: "NotUnderstood", Message: "a", LastTransitionTime: then}}
	if out, same := with(others, verdict("a")); !same || len(out) != 2 {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(others, verdict("b")); same || len(out) != 2 || out[1].Message != "b" || out[1].LastTransitionTime != then {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(others, verdict("")); same || out[0] != others[0] || out[1].Status != "True" || out[1].LastTransitionTime == then || others[1].Status != "False" {
		t.Errorf("%+v %v", out, same)
	}
	if out, same := with(nil, verdict("")); same || len(out) != 1 {
		t.Errorf("%+v %v", out, same)
	}
}
