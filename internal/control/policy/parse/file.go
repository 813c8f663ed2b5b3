package parse

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/model"
)

// Parse reads a whole file; filename is for messages. On error (every fault of the file, joined, each an *Error where
// it has a place) nothing is returned. A text that begins with "[" or "{" is JSON, any other YAML.
func Parse(filename string, text []byte) ([]Policy, []CIDRGroup, error) {
	if len(text) > MaxSize {
		return nil, nil, fmt.Errorf("%s: %w: more than %d bytes", filename, errTooLarge, MaxSize)
	}
	read := readYAML
	trimmed := bytes.TrimLeft(bytes.TrimPrefix(text, []byte("\ufeff")), " \t\r\n")
	if len(trimmed) > 0 && (trimmed[0] == '[' || trimmed[0] == '{') {
		read = readJSON
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	docs, err := read(text, &budget{})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filename, err)
	}
	if len(docs) == 0 {
		return nil, nil, fmt.Errorf("%s: no policy in it", filename)
	}
	f := file{decoder: decoder{file: filename}, keys: map[string]bool{}}
	for i, n := range docs {
		f.doc, f.root = i+1, n
		f.document(n)
	}
	if err := f.err(); err != nil {
		return nil, nil, err
	}
	return f.policies, f.groups, nil
}

type file struct {
	decoder
	policies []Policy
	groups   []CIDRGroup
	keys     map[string]bool
}

func (f *file) document(n *node) {
	switch {
	case n.kind == kindList:
		for i, item := range n.list {
			f.rawRule(item, fmt.Sprintf("[%d]", i))
		}
	case n.kind != kindMap:
		f.fail("", "want a rule, a list of rules or a resource, got %s", n.kind)
	case n.get("kind") == nil && n.get("apiVersion") == nil:
		f.rawRule(n, "")
	default:
		f.resource(n)
	}
}

func (f *file) rawRule(n *node, path string) {
	var r v2.Rule
	f.decode(n, path, reflect.ValueOf(&r).Elem())
	if n.kind != kindMap {
		return
	}
	f.checkRule(n, path, &r)
	p := Policy{Rules: []v2.Rule{r}, Ref: model.PolicyRef{Labels: refLabels(r.Labels)}}
	p.Ref.Name = rawName(p.Ref.Labels)
	if v, ok := p.Ref.Labels.Get(AuditLabelSource, AuditLabelKey); ok {
		p.Audit = f.auditValue(path+".labels", v)
	}
	key, err := rawKey(r, p.Ref.Labels)
	if err != nil {
		f.fail(path, "%v", err)
		return
	}
	p.Key = key
	if !f.keys[key] {
		f.keys[key] = true
		f.policies = append(f.policies, p)
	}
}

// rawName is what a rule without a name is called: its label "name", where it has one.
func rawName(ls model.Labels) string {
	for _, key := range []string{"name", "io.cilium.k8s.policy.name"} {
		if v, ok := ls.Get(model.SourceAny, key); ok {
			return v
		}
	}
	return ""
}

func (f *file) auditValue(path, v string) bool {
	if v != "true" && v != "false" {
		f.fail(path, "audit mode: want \"true\" or \"false\", got %q", v)
	}
	return v == "true"
}

func (f *file) resource(n *node) {
	kindNode, version := n.get("kind"), n.get("apiVersion")
	if kindNode == nil || kindNode.kind != kindString || version == nil || version.kind != kindString {
		f.fail("", "a resource needs both kind and apiVersion, as strings")
		return
	}
	switch version.text {
	case v2.APIVersion:
	case v1alpha2.APIVersion:
		if kindNode.text != v1alpha2.KindClusterNetworkPolicy {
			f.fail("kind", "%q is not supported; want %s", kindNode.text, v1alpha2.KindClusterNetworkPolicy)
			return
		}
		var r v1alpha2.ClusterNetworkPolicy
		f.decode(n, "", reflect.ValueOf(&r).Elem())
		f.cluster(n, &r)
		return
	default:
		f.fail("apiVersion", "%q is not supported; want %q or %q", version.text, v2.APIVersion, v1alpha2.APIVersion)
		return
	}
	switch kindNode.text {
	case v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy:
		var r v2.CiliumNetworkPolicy // both kinds have the same shape
		f.decode(n, "", reflect.ValueOf(&r).Elem())
		f.policy(n, &r)
	case v2.KindCIDRGroup:
		var g v2.CiliumCIDRGroup
		f.decode(n, "", reflect.ValueOf(&g).Elem())
		f.group(n, &g)
	default:
		f.fail("kind", "%q is not supported; want %s, %s or %s", kindNode.text, v2.KindNetworkPolicy,
			v2.KindClusterwideNetworkPolicy, v2.KindCIDRGroup)
	}
}

func (f *file) policy(n *node, r *v2.CiliumNetworkPolicy) {
	f.checkName("metadata.name", r.Metadata.Name)
	ref := model.PolicyRef{Kind: r.Kind, Name: r.Metadata.Name}
	key := r.Kind + "/" + r.Metadata.Name
	if r.Kind == v2.KindNetworkPolicy {
		if ref.Namespace = r.Metadata.Namespace; ref.Namespace == "" {
			ref.Namespace = "default"
		}
		f.checkName("metadata.namespace", ref.Namespace)
		key = r.Kind + "/" + ref.Namespace + "/" + r.Metadata.Name
	} else if r.Metadata.Namespace != "" {
		f.fail("metadata.namespace", "a clusterwide policy has no namespace")
	}
	p := Policy{Key: key, Ref: ref}
	if v, ok := r.Metadata.Annotations[AuditAnnotation]; ok {
		p.Audit = f.auditValue("metadata.annotations", v)
	}
	if r.Spec == nil && len(r.Specs) == 0 {
		f.fail("spec", "missing: a policy needs spec or specs")
	}
	if r.Spec != nil {
		f.checkRule(n.get("spec"), "spec", r.Spec)
		p.Rules = append(p.Rules, *r.Spec)
	}
	for i := range r.Specs {
		f.checkRule(n.get("specs").list[i], fmt.Sprintf("specs[%d]", i), &r.Specs[i])
		p.Rules = append(p.Rules, r.Specs[i])
	}
	p.Ref.Labels = ResourceLabels(ref, r.Metadata.UID, p.Rules)
	f.add(p)
}

// cluster takes a ClusterNetworkPolicy in.
func (f *file) cluster(n *node, r *v1alpha2.ClusterNetworkPolicy) {
	f.checkName("metadata.name", r.Metadata.Name)
	ref := model.PolicyRef{Kind: r.Kind, Name: r.Metadata.Name}
	if r.Metadata.Namespace != "" {
		f.fail("metadata.namespace", "a policy of the cluster has no namespace")
	}
	p := Policy{Key: r.Kind + "/" + r.Metadata.Name, Cluster: &r.Spec}
	if v, ok := r.Metadata.Annotations[AuditAnnotation]; ok {
		p.Audit = f.auditValue("metadata.annotations", v)
	}
	if spec := n.get("spec"); spec == nil {
		f.fail("spec", "missing")
	} else {
		f.checkCluster(spec, "spec", &r.Spec)
	}
	ref.Labels = ResourceLabels(ref, r.Metadata.UID, nil)
	p.Ref = ref
	f.add(p)
}

// add takes a resource in, each once.
func (f *file) add(p Policy) {
	if f.keys[p.Key] {
		f.fail("metadata.name", "%s is in this file twice", p.Key)
	}
	f.keys[p.Key] = true
	f.policies = append(f.policies, p)
}

// ResourceLabels are those by which `policy get` and `policy delete` find a resource: what it is, and its rules' own.
func ResourceLabels(ref model.PolicyRef, uid string, rules []v2.Rule) model.Labels {
	k8s := func(key, value string) v2.Label {
		return v2.Label{Source: model.SourceK8s, Key: "io.cilium.k8s.policy." + key, Value: value}
	}
	ls := []v2.Label{k8s("derived-from", ref.Kind), k8s("name", ref.Name)}
	if ref.Namespace != "" {
		ls = append(ls, k8s("namespace", ref.Namespace))
	}
	if uid != "" {
		ls = append(ls, k8s("uid", uid))
	}
	for _, r := range rules {
		ls = append(ls, r.Labels...)
	}
	return refLabels(ls)
}

func (f *file) group(n *node, r *v2.CiliumCIDRGroup) {
	f.checkName("metadata.name", r.Metadata.Name)
	if n.get("spec") == nil {
		f.fail("spec", "missing")
	}
	g := CIDRGroup{Name: r.Metadata.Name, CIDRs: make([]netip.Prefix, 0, len(r.Spec.ExternalCIDRs))}
	for i, s := range r.Spec.ExternalCIDRs {
		p, err := v2.ParseCIDR(s)
		if err != nil {
			f.fail(fmt.Sprintf("spec.externalCIDRs[%d]", i), "%v", err)
		}
		g.CIDRs = append(g.CIDRs, p)
	}
	var ls []model.Label
	for k, v := range r.Metadata.Labels {
		ls = append(ls, model.Label{Source: model.SourceK8s, Key: k, Value: v})
	}
	g.Labels = model.NewLabels(ls...)
	if key := r.Kind + "/" + g.Name; f.keys[key] {
		f.fail("metadata.name", "%s is in this file twice", key)
	} else {
		f.keys[key] = true
	}
	f.groups = append(f.groups, g)
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

func (f *file) checkName(path, name string) {
	if len(name) > 253 || !dnsName.MatchString(name) || strings.Contains(name, "..") {
		f.fail(path, "%q: want lower-case letters, digits, \"-\" and \".\"", name)
	}
}
