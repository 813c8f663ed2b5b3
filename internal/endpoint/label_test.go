package endpoint

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

// CVE-2023-39347: what a workload says of itself does not move it into another namespace or service account.
func TestWorkloadCannotSayWhereItBelongs(t *testing.T) {
	for _, s := range []string{
		"io.kubernetes.pod.namespace=kube-system", "container:io.kubernetes.pod.namespace=kube-system", "any:id=app1",
		"io.cilium.k8s.policy.serviceaccount=admin", "container:io.cilium.k8s.policy.cluster=other",
		"io.cilium.k8s.namespace.labels.team=red", "io.cilium.k8s.namespace.labels=red",
		"reserved:host", "cidr:0.0.0.0/0", "fqdn:example.org", "node:role=master", "cidrgroup:x",
	} {
		if _, err := parseLabels([]string{"id=app1", s}); err == nil {
			t.Errorf("%s accepted at ADD", s)
		}
		if _, err := change(nil, []string{s}, nil); err == nil {
			t.Errorf("%s accepted as a change", s)
		}
	}
}

// Label sets that are accepted can be told apart by their keys in the store.
func TestKeysAreUnique(t *testing.T) {
	label := rapid.StringMatching(`[a-c:;=/.]{1,7}`)
	draw := func(t *rapid.T, name string) (model.Labels, bool) {
		ls, err := parseLabels(rapid.SliceOfN(label, 1, 3).Draw(t, name))
		return model.NewLabels(ls...), err == nil
	}
	rapid.Check(t, func(t *rapid.T) {
		a, ok1 := draw(t, "a")
		b, ok2 := draw(t, "b")
		if ok1 && ok2 && a.Key() == b.Key() && !a.Equal(b) {
			t.Fatalf("%v and %v have the same key", a, b)
		}
	})
}
