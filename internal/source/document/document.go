// Package document reads policies as an API server has them. They are read by the parser alone: read into a Go type first, they would lose
// what the type does not know, and with it the parser's objection.
package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
)

var ciliumVersion = schema.GroupVersion{Group: "cilium.io", Version: "v2"}

// ClusterPolicyVersion is where ClusterNetworkPolicies are.
var ClusterPolicyVersion = schema.GroupVersion{Group: "policy.networking.k8s.io", Version: "v1alpha2"}

// Document is a policy as the API server has it.
type Document struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	body []byte // the resource without what the API server adds
}

// List is a list of policies of one kind.
type List struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Document
}

// AddToScheme makes a scheme read all kinds of policies as documents.
func AddToScheme(s *runtime.Scheme) {
	for gv, kinds := range map[schema.GroupVersion][]string{
		ciliumVersion:        {v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy, v2.KindCIDRGroup},
		ClusterPolicyVersion: {v1alpha2.KindClusterNetworkPolicy},
	} {
		for _, kind := range kinds {
			s.AddKnownTypeWithName(gv.WithKind(kind), &Document{})
			s.AddKnownTypeWithName(gv.WithKind(kind+"List"), &List{})
		}
		metav1.AddToGroupVersion(s, gv)
	}
}

// envelope is what is read of a document here.
type envelope struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Spec       json.RawMessage   `json:"spec,omitempty"`
	Specs      json.RawMessage   `json:"specs,omitempty"`
}

// letter is what is kept of it for the parser.
type letter struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   v2.ObjectMeta   `json:"metadata"`
	Spec       json.RawMessage `json:"spec,omitempty"`
	Specs      json.RawMessage `json:"specs,omitempty"`
}

// UnmarshalJSON opens the envelope.
func (d *Document) UnmarshalJSON(b []byte) error {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	m := &e.Metadata
	d.TypeMeta = metav1.TypeMeta{APIVersion: e.APIVersion, Kind: e.Kind}
	d.ObjectMeta = metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation}
	if v, ok := m.Annotations[metav1.InitialEventsAnnotationKey]; ok { // not of a policy: it ends a watch's list of what there was
		d.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: v}
	}
	out := letter{APIVersion: e.APIVersion, Kind: e.Kind, Spec: e.Spec, Specs: e.Specs,
		Metadata: v2.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: string(m.UID)}}
	if v, ok := m.Annotations[parse.AuditAnnotation]; ok {
		out.Metadata.Annotations = map[string]string{parse.AuditAnnotation: v}
	}
	if e.Kind == v2.KindCIDRGroup {
		out.Metadata.Labels = m.Labels
	}
	body, err := json.Marshal(out)
	d.body = body
	return err
}

// UnmarshalJSON reads a list, whose members need not say what they are.
func (l *List) UnmarshalJSON(b []byte) error {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ListMeta `json:"metadata"`
		Items           []Document      `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("read list: %w", err)
	}
	l.TypeMeta, l.ListMeta, l.Items = list.TypeMeta, list.Metadata, list.Items
	return nil
}

// DeepCopyObject implements runtime.Object.
func (d *Document) DeepCopyObject() runtime.Object {
	out := *d
	d.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *List) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = slices.Clone(l.Items)
	return &out
}

// Parse says what a policy, or a group of prefixes, means. Its errors are for the author: without the places of a text that nobody has
// written so.
func (d *Document) Parse() ([]parse.Policy, []parse.CIDRGroup, error) {
	policies, groups, err := parse.Parse(d.Kind, d.body)
	if err != nil {
		return nil, nil, reasons(err)
	}
	return policies, groups, nil
}

// reasons are the faults of a document.
func reasons(err error) error {
	all := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the parser's own join
		all = many.Unwrap()
	}
	texts := make([]string, len(all))
	for i, e := range all {
		texts[i] = e.Error()
		if pe, ok := errors.AsType[*parse.Error](e); ok {
			texts[i] = pe.Reason
			if pe.Path != "" {
				texts[i] = pe.Path + ": " + pe.Reason
			}
		}
	}
	return errors.New(strings.Join(texts, "; "))
}
