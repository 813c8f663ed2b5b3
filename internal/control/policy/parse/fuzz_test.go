package parse

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// What parses must survive the store unchanged; nothing may panic.
func checkText(t testing.TB, name string, in []byte) {
	ps, gs, err := Parse(name, in)
	if err != nil {
		if ps != nil || gs != nil {
			t.Fatal("policies beside an error")
		}
		return
	}
	for _, p := range ps {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Policy
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("stored form is refused: %v\n%s", err, b)
		}
		if d := cmp.Diff(p, back); d != "" {
			t.Fatal(d)
		}
	}
}

// Texts of policies, well written.
var (
	jsons = []string{story,
		`{"endpointSelector":{},"ingress":[{"fromEndpoints":[]},{"fromCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]}],"egress":[],"labels":["a:b=c",{"key":"k"}]}`,
		`{"endpointSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]},"ingressDeny":[{"icmps":[{"fields":[{"type":"EchoReply","family":"IPv6"}]}]}],"enableDefaultDeny":{"ingress":false}}`}
	yamls = []string{
		"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n---\napiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: g}\nspec: {externalCIDRs: [10.0.0.0/8]}\n",
		"- &r\n  endpointSelector: {}\n  egress: []\n- *r\n",
		"apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: b\n  annotations: {policy.hypha.io/audit: \"true\"}\nspecs:\n- endpointSelector: {matchLabels: {\"k8s:a\": \"1\"}}\n  egressDeny:\n  - toPorts: [{ports: [{port: \"1\", endPort: 9}]}]\n"}
)

func checkJSON(t testing.TB, in []byte) {
	checkText(t, "fuzz.json", in)
	var p Policy
	if json.Unmarshal(in, &p) == nil && p.Key == "" {
		t.Fatal("a stored policy without a key")
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range jsons {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkJSON(t, in) })
}

func FuzzYAML(f *testing.F) {
	for _, s := range yamls {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkText(t, "fuzz.yaml", in) })
}

func texts(ss []string) (out [][]byte) {
	for _, s := range ss {
		out = append(out, []byte(s))
	}
	return out
}

// TestCase34Policy: no text of a policy, annotations included, crashes the reader or keeps it longer than a second.
func TestCase34Policy(t *testing.T) {
	for _, x := range []struct {
		name   string
		corpus [][]byte
		check  func(testing.TB, []byte)
	}{
		{"JSON", texts(jsons), checkJSON},
		{"YAML", texts(yamls), func(t testing.TB, in []byte) { checkText(t, "fuzz.yaml", in) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := score.Start(t, "34", "fuzz policy "+x.name)
			r := c.Rand()
			cost := mutate.Each(t, score.Size(5_000, 10_000_000), 90*time.Second, func() []byte { return mutate.Text(r, x.corpus) },
				func(in []byte) { x.check(t, in) })
			c.Count(cost.Tried, "texts")
			c.Say("%v", cost)
		})
	}
}
