package connectivity

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"text/template"

	"sigs.k8s.io/yaml"
)

// manifests are the policies of all tests, as templates over manifestValues.
//
//go:embed policy/*.yaml
var manifests embed.FS

var templates = template.Must(template.ParseFS(manifests, "policy/*.yaml"))

// Document is one policy, as its kind is written.
type Document struct {
	Kind      string
	Namespace string // "" for kinds without one
	Name      string
	Object    map[string]any
}

// YAML is the document as text.
func (d Document) YAML() []byte {
	b, err := yaml.Marshal(d.Object)
	if err != nil {
		panic(err) // it was read from YAML
	}
	return b
}

// manifestValues are what policies are about.
type manifestValues struct {
	Namespace string
	Port      int
	PortName  string
	Low, High int // the port as a range; High 0: it is Port
	V4, V6    Block
	Outside   []netip.Prefix // of machines outside, as nodes see them
}

func (s *Site) values(ranged bool) manifestValues {
	v := manifestValues{Namespace: s.Namespace, Port: s.Port, PortName: s.PortName, Low: s.Port, V4: s.External.V4}
	if s.V6 {
		v.V6 = s.External.V6
	}
	for _, o := range s.Outside {
		for _, a := range o.Addrs {
			v.Outside = append(v.Outside, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if ranged {
		v.Low, v.High = s.Port-2, s.Port+20
	}
	return v
}

// document reads a policy of a test.
func document(name string, v manifestValues) (Document, error) {
	var text bytes.Buffer
	if err := templates.ExecuteTemplate(&text, name+".yaml", v); err != nil {
		return Document{}, fmt.Errorf("write policy %s: %w", name, err)
	}
	var head struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	d := Document{}
	if err := yaml.Unmarshal(text.Bytes(), &head); err != nil {
		return d, fmt.Errorf("read policy %s: %w", name, err)
	}
	if err := yaml.Unmarshal(text.Bytes(), &d.Object); err != nil {
		return d, fmt.Errorf("read policy %s: %w", name, err)
	}
	d.Kind, d.Name, d.Namespace = head.Kind, head.Metadata.Name, head.Metadata.Namespace
	return d, nil
}

// clusterwide is a policy of one namespace as one of the whole cluster that means the same.
func (d Document) clusterwide() Document {
	if d.Kind != "CiliumNetworkPolicy" {
		return d
	}
	spec := within(d.Object["spec"], d.Namespace).(map[string]any)
	return Document{Kind: "CiliumClusterwideNetworkPolicy", Name: d.Namespace + "-" + d.Name, Object: map[string]any{
		"apiVersion": d.Object["apiVersion"], "kind": "CiliumClusterwideNetworkPolicy",
		"metadata": map[string]any{"name": d.Namespace + "-" + d.Name, "labels": map[string]any{"connectivity": d.Namespace}}, "spec": spec,
	}}
}

// within copies part of a policy's spec, with all selectors of workloads limited to a namespace, as they are where the policy has one.
func within(v any, namespace string) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = within(v[i], namespace)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for key, member := range v {
			out[key] = within(member, namespace)
			switch key {
			case "endpointSelector":
				out[key] = limit(out[key], namespace)
			case "fromEndpoints", "toEndpoints":
				for i, s := range out[key].([]any) {
					out[key].([]any)[i] = limit(s, namespace)
				}
			}
		}
		return out
	}
	return v
}

func limit(selector any, namespace string) any {
	const key = "io.kubernetes.pod.namespace"
	s := selector.(map[string]any)
	labels, _ := s["matchLabels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
		s["matchLabels"] = labels
	}
	if _, named := labels[key]; !named {
		labels[key] = namespace
	}
	return s
}
