package endpoint

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// claims are labels by which a workload would say where it belongs.
var claims = []string{
	"io.kubernetes.pod.namespace=kube-system", "container:io.kubernetes.pod.namespace=kube-system", "any:id=app1",
	"io.cilium.k8s.policy.serviceaccount=admin", "container:io.cilium.k8s.policy.cluster=other",
	"io.cilium.k8s.namespace.labels.team=red", "io.cilium.k8s.namespace.labels=red",
	"reserved:host", "cidr:0.0.0.0/0", "fqdn:example.org", "node:role=master", "cidrgroup:x",
}

// checkLabels: labels that are accepted, at ADD or later, say nothing that is the agent's to say, and are written as they read.
func checkLabels(t testing.TB, ss []string) {
	added, err := parseLabels(ss)
	changed, err2 := change(nil, ss, nil)
	if err == nil && (err2 != nil || len(changed) > len(added)) {
		t.Errorf("%q accepted at ADD only: %v, %v", ss, changed, err2)
	}
	for _, l := range append(added, changed...) {
		if slices.Contains(ownSources, l.Source) || strings.HasPrefix(l.Key, "io.cilium.k8s.") || l.Key == "io.kubernetes.pod.namespace" {
			t.Errorf("%q accepted", l)
		}
		if back, err := model.ParseLabel(l.String(), model.SourceK8s); err != nil || back != l {
			t.Errorf("%q reads back as %q: %v", l, back, err)
		}
	}
}

func FuzzLabels(f *testing.F) {
	for _, s := range append(claims, "id=app1", "k8s:app.kubernetes.io/name=x", "a", "a=;b") {
		f.Add(s, "team=x")
	}
	f.Fuzz(func(t *testing.T, a, b string) { checkLabels(t, []string{a, b}) })
}

// TestCase34Labels: labels and annotations of workloads, as CNI and the API hand them over.
func TestCase34Labels(t *testing.T) {
	c := score.Start(t, "34", "fuzz labels")
	r := c.Rand()
	var corpus [][]byte
	for _, s := range append(claims, "id=app1", "k8s:app.kubernetes.io/name=x") {
		corpus = append(corpus, []byte(s))
	}
	worst := mutate.Once(t, strings.Split(strings.Repeat("a=b,", 1_000_000), ","), func(ss []string) { checkLabels(t, ss) })
	worst = max(worst, mutate.Once(t, []string{strings.Repeat("a.", 2_000_000) + "=" + strings.Repeat("b-", 2_000_000)}, func(ss []string) { checkLabels(t, ss) }))
	cost := mutate.Each(t, score.Size(30_000, 10_000_000), 2*time.Minute, func() []string {
		return []string{string(mutate.Text(r, corpus)), string(corpus[r.IntN(len(corpus))]), string(mutate.Text(r, corpus))}[r.IntN(3):]
	}, func(ss []string) { checkLabels(t, ss) })
	cost.Worst = max(cost.Worst, worst)
	c.Count(cost.Tried, "label lists")
	c.Say("%v", cost)
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
