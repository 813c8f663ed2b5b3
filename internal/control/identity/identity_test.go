package identity

import (
	"testing"

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
	if got := RemoteNode(&n, false).Key(); got != "node:role=db;reserved:remote-node=;" {
		t.Error(got)
	}
	if got := RemoteNode(&n, true).Key(); got != "node:role=db;reserved:kube-apiserver=;reserved:remote-node=;" {
		t.Error(got)
	}
}
