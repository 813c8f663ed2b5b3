package endpoint_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/endpoint"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// TestCVE_2023_39347_OwnNamespaceLabels: whatever a workload says of itself, when it comes, later, and across a restart, it stays
// in its namespace, service account and cluster.
func TestCVE_2023_39347_OwnNamespaceLabels(t *testing.T) {
	c := score.Start(t, "CVE-2023-39347", "labels of a pod taken as those of its namespace or service account, at ADD and on update")
	r := c.Rand()
	sources := []string{"", "k8s:", "container:", "cni:", "any:", "reserved:", "node:", "unspec:", "k8s:k8s:", " k8s:", "K8S:"}
	keys := []string{"io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace.x", "io.cilium.k8s.policy.serviceaccount", "io.cilium.k8s.policy.cluster",
		"io.cilium.k8s.namespace.labels", "io.cilium.k8s.namespace.labels.team", "io.kubernetes.pod.namespace ", "io.kubernetes.pod.namespace/x",
		"io.cilium.k8s.policy.serviceaccount;k8s:io.kubernetes.pod.namespace"}
	n := newNode(t)
	e := n.add("a", "id=app1")
	agents := agentLabels(e.Labels.Strings())
	tried, accepted := score.Size(500, 20_000), 0
	check := func(got []string) {
		if d := cmp.Diff(agents, agentLabels(got)); d != "" {
			t.Fatalf("the workload moved itself: %s", d)
		}
	}
	for i := range tried {
		claim := sources[r.IntN(len(sources))] + keys[r.IntN(len(keys))] + []string{"=kube-system", "=", "", "=a=b"}[r.IntN(4)]
		change := endpoint.Change{AddLabels: []string{claim, "n=1"}}
		if r.IntN(4) == 0 {
			change = endpoint.Change{DeleteLabels: []string{claim}}
		}
		if got, err := n.Update(t.Context(), e.ID, change); err == nil {
			accepted++
			check(got.Labels.Strings())
		}
		if i%50 == 0 {
			if got, err := n.Add(t.Context(), spec("b", claim)); err == nil {
				accepted++
				check(got.Labels.Strings())
				if _, err := n.Delete(t.Context(), endpoint.Key{ContainerID: "c-b", IfName: "eth0"}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	n.restart()
	n.settle(1)
	rows, err := n.List("")
	if err != nil {
		t.Fatal(err)
	}
	check(rows[0].Labels.Strings())
	c.Count(tried, "claims")
	c.Say("0 moved; %d accepted as labels without a meaning", accepted)
}

// agentLabels are the labels that mean something to the agent, whatever their source.
func agentLabels(ls []string) []string {
	return slices.DeleteFunc(slices.Clone(ls), func(l string) bool {
		key, _, _ := strings.Cut(l[strings.Index(l, ":")+1:], "=")
		return key != "io.kubernetes.pod.namespace" && !strings.HasPrefix(key, "io.cilium.k8s.")
	})
}
