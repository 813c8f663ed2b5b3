package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hypha-net/hypha/internal/model"
)

func parse(t *testing.T, ss ...string) model.Labels {
	t.Helper()
	ls, err := model.ParseLabels(ss, model.SourceK8s)
	if err != nil {
		t.Fatal(err)
	}
	return ls
}

func filter(t *testing.T, rules ...string) *Filter {
	t.Helper()
	f, err := NewFilter(rules)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		rules []string
		label string
		want  bool
	}{
		{nil, "app", true},
		{nil, "io.kubernetes.pod.namespace=x", true},
		{nil, "io.kubernetes.container.hash=x", false},
		{nil, "app.kubernetes.io/name=x", true},
		{nil, "kubernetes.io/os=linux", false},
		{nil, "pod-template-hash=77", false},
		{nil, "controller-revision-hash=77", false},
		{nil, "statefulset.kubernetes.io/pod-name=a-0", false},
		{nil, "io.cilium.k8s.namespace.labels.team=x", true},
		{nil, "io.cilium.k8s.policy.serviceaccount=x", true},
		{nil, "reserved:host", true},
		{[]string{"id"}, "app", false},
		{[]string{"id"}, "id=app1", true},
		{[]string{"id"}, "identity=app1", true},
		{[]string{"id"}, "io.kubernetes.pod.namespace=x", true},
		{[]string{"!team"}, "team=x", false},
		{[]string{"!team"}, "app", true},
		{[]string{"!team", "team-name"}, "team-name=x", true},
		{[]string{"k8s:id"}, "container:id=x", false},
		{[]string{"any:id"}, "container:id=x", true},
		{[]string{"k8s:!x"}, "app", false},
		{[]string{`a\.b`}, "aXb", false},
	} {
		if got := filter(t, c.rules...).Relevant(parse(t, c.label)[0]); got != c.want {
			t.Errorf("%v: %s relevant = %v", c.rules, c.label, got)
		}
	}
	for _, bad := range []string{"", "!", "k8s:", "a(", "!k8s:"} {
		if _, err := NewFilter([]string{bad}); err == nil {
			t.Errorf("filter %q accepted", bad)
		}
	}
}

// CVE-2023-39347: what a workload says of itself does not move it into another namespace or service account.
func TestWorkloadCannotSayWhereItBelongs(t *testing.T) {
	own := parse(t, "id=app1", "io.kubernetes.pod.namespace=kube-system", "io.cilium.k8s.policy.serviceaccount=admin",
		"any:io.kubernetes.pod.namespace=kube-system", "container:io.cilium.k8s.policy.cluster=other",
		"io.cilium.k8s.namespace.labels.team=red", "io.cilium.k8s.namespace.labels=red", "reserved:host", "cidr:0.0.0.0/0",
		"fqdn:example.org", "node:role=master", "cidrgroup:x", "pod-template-hash=1")
	got, dropped, err := Workload(filter(t), own, parse(t, "io.kubernetes.pod.namespace=default"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(parse(t, "id=app1", "io.kubernetes.pod.namespace=default"), got); d != "" {
		t.Error(d)
	}
	if len(dropped) != 11 {
		t.Errorf("dropped %v", dropped.Strings())
	}
}

func TestWorkload(t *testing.T) {
	got, _, err := Workload(filter(t), nil, nil)
	if err != nil || got.Key() != "reserved:init=;" {
		t.Errorf("%q, %v", got.Key(), err)
	}
	for _, bad := range []model.Label{
		{Source: "k8s", Key: "a", Value: "b;k8s:admin=true"}, {Source: "k8s", Key: "a;b"}, {Source: "k8s", Key: "a=b"},
		{Source: "k8s:x", Key: "a"}, {Source: "", Key: "a"}, {Source: "k8s", Key: ""}, {Source: "k8s", Key: "a", Value: "\x1b[2J"},
		{Source: "k8s", Key: "a", Value: "\xff"}, {Source: "k8s", Key: "a", Value: string(make([]byte, 2000))},
	} {
		if _, _, err := Workload(filter(t), model.NewLabels(bad), nil); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
	if _, _, err := Workload(filter(t), parse(t, "a=1", "a=2"), nil); err == nil {
		t.Error("two values for a key accepted")
	}
}

// Valid labels can be told apart by the key of their set.
func TestKeysAreUnique(t *testing.T) {
	part := rapid.StringMatching(`[a-c:;=/.]{0,3}`)
	draw := func(t *rapid.T, name string) (model.Labels, bool) {
		var ls []model.Label
		for range rapid.IntRange(1, 3).Draw(t, name) {
			l := model.Label{Source: part.Draw(t, "s"), Key: part.Draw(t, "k"), Value: part.Draw(t, "v")}
			if Validate(l) != nil {
				return nil, false
			}
			ls = append(ls, l)
		}
		return model.NewLabels(ls...), true
	}
	rapid.Check(t, func(t *rapid.T) {
		a, ok1 := draw(t, "a")
		b, ok2 := draw(t, "b")
		if ok1 && ok2 && a.Key() == b.Key() && !a.Equal(b) {
			t.Fatalf("%v and %v have the same key", a, b)
		}
	})
}

func TestScope(t *testing.T) {
	for _, c := range []struct{ base, first model.IdentityID }{
		{model.IdentityScopeLocal, 16777217}, {model.IdentityScopeRemote, 33554432},
	} {
		s := NewScope(c.base)
		a, isNew, err := s.Acquire(parse(t, "a"))
		if a != c.first || !isNew || err != nil {
			t.Errorf("first %d %v %v, want %d", a, isNew, err, c.first)
		}
		if again, isNew, _ := s.Acquire(parse(t, "a")); again != a || isNew {
			t.Errorf("again %d %v", again, isNew)
		}
		if s.Release(a) || !s.Release(a) || s.Release(a) {
			t.Error("users are not counted")
		}
		if b, _, _ := s.Acquire(parse(t, "b")); b != a+1 {
			t.Errorf("%d reused early", b)
		}
		if err := s.Restore(parse(t, "c"), c.base|77); err != nil {
			t.Error(err)
		}
		for ls, id := range map[string]model.IdentityID{"c": c.base | 78, "d": c.base | 77, "e": 300} {
			if err := s.Restore(parse(t, ls), id); err == nil {
				t.Errorf("%s restored as %d", ls, id)
			}
		}
		if d, _, _ := s.Acquire(parse(t, "d")); d != c.base|78 {
			t.Errorf("after restore: %d", d)
		}
		if ls, ok := s.Labels(c.base | 77); !ok || ls.Key() != "k8s:c=;" {
			t.Error(ls, ok)
		}
	}
}

func TestRemoteNode(t *testing.T) {
	n := model.Node{Name: "n", Labels: parse(t, "role=db")}
	if got := RemoteNode(&n).Key(); got != "node:role=db;reserved:remote-node=;" {
		t.Error(got)
	}
}
