package policy_test

import (
	"testing"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
)

// A set whose last endpoint goes in the batch in which another takes it over is in use all the while: when the same batch
// splits a class, both halves keep their rows in it. (Found by case 20.)
func TestSetHandedOverWhileClassSplits(t *testing.T) {
	d := play(t, `[{"labels":["name=deny"],"endpointSelector":{"matchLabels":{"app":"web"}},
		"ingress":[{"fromEndpoints":[{}]}],"ingressDeny":[{"fromEndpoints":[{"matchLabels":{"who":"bad"}}]}]}]`,
		[]string{"k8s:app=web"}, []string{"k8s:app=other"})
	who := func(id model.IdentityID, name string) policy.Identity {
		return policy.Identity{Identity: model.Identity{ID: id, Labels: mustLabels("k8s:who=bad", "k8s:name="+name)}}
	}
	d.apply(policy.Changes{Identities: []policy.Identity{who(1011, "one"), who(1012, "two")}})
	for _, peer := range []int{1011, 1012} {
		d.want(model.Ingress, 1, peer, 80, false)
	}
	ps, _, err := parse.Parse("x.json", []byte(`[{"endpointSelector":{"matchLabels":{"app":"other"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"name":"two"}}]}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	delete(d.k.endpoints, 1)
	d.apply(policy.Changes{DeleteSubjects: []uint16{1}, Subjects: []policy.Subject{{Endpoint: 3, Identity: 1001}}, Policies: ps})
	for _, peer := range []int{1011, 1012} {
		d.want(model.Ingress, 3, peer, 80, false)
	}
}
