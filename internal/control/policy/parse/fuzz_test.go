package parse

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What parses must survive the store unchanged; nothing may panic.
func checkText(t *testing.T, name string, in []byte) {
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

func FuzzJSON(f *testing.F) {
	f.Add([]byte(story))
	f.Add([]byte(`{"endpointSelector":{},"ingress":[{"fromEndpoints":[]},{"fromCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]}],"egress":[],"labels":["a:b=c",{"key":"k"}]}`))
	f.Add([]byte(`{"endpointSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]},"ingressDeny":[{"icmps":[{"fields":[{"type":"EchoReply","family":"IPv6"}]}]}],"enableDefaultDeny":{"ingress":false}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkText(t, "fuzz.json", in)
		var p Policy
		if json.Unmarshal(in, &p) == nil && p.Key == "" {
			t.Fatal("a stored policy without a key")
		}
	})
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n---\napiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: g}\nspec: {externalCIDRs: [10.0.0.0/8]}\n"))
	f.Add([]byte("- &r\n  endpointSelector: {}\n  egress: []\n- *r\n"))
	f.Add([]byte("apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: b\nspecs:\n- endpointSelector: {matchLabels: {\"k8s:a\": \"1\"}}\n  egressDeny:\n  - toPorts: [{ports: [{port: \"1\", endPort: 9}]}]\n"))
	f.Fuzz(func(t *testing.T, in []byte) { checkText(t, "fuzz.yaml", in) })
}
