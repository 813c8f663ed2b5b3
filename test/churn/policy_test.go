package churn

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/test/churn/history"
)

// The labels of pods, and what policies ask for.
var (
	roles = []string{"red", "green", "blue"}
	zones = []string{"east", "west"}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func randomLabels(r *rand.Rand) []string {
	return []string{"role=" + pick(r, roles), "zone=" + pick(r, zones)}
}

func labelsOf(ss []string) model.Labels {
	ls, err := model.ParseLabels(ss, model.SourceK8s)
	if err != nil {
		panic(err) // they are ours
	}
	return model.NewLabels(append(ls, model.Label{Source: model.SourceK8s, Key: model.KeyNamespace, Value: namespace})...)
}

// namespace of all pods and policies.
const namespace = "default"

// randomPolicy is a document with one policy of this name, and what it means.
func randomPolicy(r *rand.Rand, name string) (doc string, policy oracle.Policy, err error) {
	selector := func() map[string]any {
		key, value, _ := strings.Cut(pick(r, randomLabels(r)), "=")
		return map[string]any{"matchLabels": map[string]string{key: value}}
	}
	section, peers := "ingress", "fromEndpoints"
	if r.IntN(3) == 0 {
		section, peers = "egress", "toEndpoints"
	}
	part := map[string]any{peers: []any{selector()}}
	if r.IntN(2) == 0 {
		part[peers] = []any{selector(), selector()}
	}
	switch r.IntN(4) {
	case 0:
		part["toPorts"] = []any{map[string]any{"ports": []any{map[string]any{"port": fmt.Sprint(history.Port), "protocol": "UDP"}}}}
	case 1:
		part["toPorts"] = []any{map[string]any{"ports": []any{map[string]any{"port": "9", "protocol": "UDP"}, map[string]any{"port": "80", "protocol": "ANY"}}}}
	}
	if r.IntN(4) == 0 {
		section += "Deny"
	}
	b, err := json.Marshal(map[string]any{
		"apiVersion": "cilium.io/v2", "kind": v2.KindNetworkPolicy, "metadata": map[string]string{"name": name, "namespace": namespace},
		"spec": map[string]any{"endpointSelector": selector(), section: []any{part}},
	})
	if err != nil {
		return "", policy, err
	}
	ps, _, err := parse.Parse("churn", b)
	if err != nil {
		return "", policy, err
	}
	return string(b), oracle.Policy{Kind: v2.KindNetworkPolicy, Namespace: namespace, Rules: ps[0].Rules}, nil
}
