package k8s

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/control/policy/parse"
)

var clusterPolicyVersion = schema.GroupVersion{Group: "policy.networking.k8s.io", Version: "v1alpha2"}

// document is a policy as the API server has it. It is read by the parser alone: read into a Go type first, it would lose what the type
// does not know, and with it the parser's objection.
type document struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	body  []byte // the resource without what the API server adds
	valid *ciliumv2.Condition
}

type documentList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []document
}

// addDocuments makes a scheme read all kinds of policies as documents.
func addDocuments(s *runtime.Scheme) {
	for gv, kinds := range map[schema.GroupVersion][]string{
		ciliumv2.GroupVersion: {v2.KindNetworkPolicy, v2.KindClusterwideNetworkPolicy, v2.KindCIDRGroup},
		clusterPolicyVersion:  {v1alpha2.KindClusterNetworkPolicy},
	} {
		for _, kind := range kinds {
			s.AddKnownTypeWithName(gv.WithKind(kind), &document{})
			s.AddKnownTypeWithName(gv.WithKind(kind+"List"), &documentList{})
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
	Status     struct {
		Conditions []ciliumv2.Condition `json:"conditions"`
	} `json:"status"`
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
func (d *document) UnmarshalJSON(b []byte) error {
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
	if i := slices.IndexFunc(e.Status.Conditions, func(c ciliumv2.Condition) bool { return c.Type == ciliumv2.ConditionValid }); i >= 0 {
		d.valid = &e.Status.Conditions[i]
	}
	body, err := json.Marshal(out)
	d.body = body
	return err
}

// UnmarshalJSON reads a list, whose members need not say what they are.
func (l *documentList) UnmarshalJSON(b []byte) error {
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ListMeta `json:"metadata"`
		Items           []document      `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("read list: %w", err)
	}
	l.TypeMeta, l.ListMeta, l.Items = list.TypeMeta, list.Metadata, list.Items
	return nil
}

// DeepCopyObject implements runtime.Object.
func (d *document) DeepCopyObject() runtime.Object {
	out := *d
	d.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *documentList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = slices.Clone(l.Items)
	return &out
}
