package parse

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/api/networkpolicy/v1alpha2"
	"github.com/hypha-net/hypha/internal/model"
)

// Policy is one unit that is added, replaced and deleted as a whole: a resource, or one rule of `policy import`.
// It is not to be changed once made. Its JSON form (for the store) is read back as strictly as a file.
type Policy struct {
	// Key names it among all policies: "CiliumNetworkPolicy/<namespace>/<name>", "CiliumClusterwideNetworkPolicy/<name>",
	// "ClusterNetworkPolicy/<name>", "rule/<hash of labels and content>". Importing the same thing again gives the same key.
	Key string
	// Ref is what people see. Labels are those that `policy get` and `policy delete` look for: the rules' own, for a
	// resource also k8s:io.cilium.k8s.policy.{derived-from,name,namespace,uid}.
	Ref   model.PolicyRef
	Audit bool // its denials are reported, not enforced
	Rules []v2.Rule
	// Cluster is set instead of Rules for a ClusterNetworkPolicy.
	Cluster *v1alpha2.ClusterSpec
}

// Tier is the stage at which the policy is asked.
func (p *Policy) Tier() model.Tier {
	switch {
	case p.Cluster == nil:
		return model.TierNormal
	case p.Cluster.Tier == v1alpha2.TierBaseline:
		return model.TierBaseline
	}
	return model.TierAdmin
}

// Len is how many rules it has.
func (p *Policy) Len() int {
	if p.Cluster != nil {
		return len(p.Cluster.Ingress) + len(p.Cluster.Egress)
	}
	return len(p.Rules)
}

// CIDRGroup is a named list of prefixes, masked.
type CIDRGroup struct {
	Name   string
	Labels model.Labels // source k8s
	CIDRs  []netip.Prefix
}

// stored is the JSON form of a Policy.
type stored struct {
	Key       string     `json:"key"`
	Kind      string     `json:"kind,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Name      string     `json:"name,omitempty"`
	Labels    []v2.Label `json:"labels,omitempty"`
	Revision  uint64     `json:"revision,omitempty"`
	Audit     bool       `json:"audit,omitempty"`
	Rules     []v2.Rule  `json:"rules,omitzero"`

	Cluster *v1alpha2.ClusterSpec `json:"cluster,omitzero"`
}

// MarshalJSON writes the store's form.
func (p Policy) MarshalJSON() ([]byte, error) {
	s := stored{Key: p.Key, Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name, Revision: p.Ref.Revision,
		Audit: p.Audit, Rules: p.Rules, Cluster: p.Cluster}
	for _, l := range p.Ref.Labels {
		s.Labels = append(s.Labels, v2.Label{Source: l.Source, Key: l.Key, Value: l.Value})
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads the store's form. What this version does not understand is an error, never left out: a rule
// without a part that a newer version wrote would allow more.
func (p *Policy) UnmarshalJSON(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("stored policy: %w", errTooLarge)
	}
	docs, err := readJSON(b, &budget{})
	if err != nil {
		return fmt.Errorf("stored policy: %w", err)
	}
	var s stored
	d := &decoder{file: "stored policy", doc: 1, root: docs[0]}
	d.decode(docs[0], "", reflect.ValueOf(&s).Elem())
	for i := range s.Rules {
		d.checkRule(docs[0].get("rules").list[i], fmt.Sprintf("rules[%d]", i), &s.Rules[i])
	}
	switch cluster := docs[0].get("cluster"); {
	case s.Key == "":
		d.fail("key", "missing")
	case (cluster != nil) == (docs[0].get("rules") != nil):
		d.fail("", "want exactly one of rules, cluster")
	case s.Cluster != nil:
		d.checkCluster(cluster, "cluster", s.Cluster)
	}
	if err := d.err(); err != nil {
		return err
	}
	*p = Policy{Key: s.Key, Audit: s.Audit, Rules: s.Rules, Cluster: s.Cluster, Ref: model.PolicyRef{Kind: s.Kind, Namespace: s.Namespace,
		Name: s.Name, Labels: refLabels(s.Labels), Revision: s.Revision}}
	return nil
}

func (d *decoder) err() error {
	errs := d.errs
	if d.full() {
		errs = append(errs, fmt.Errorf("%s: not read any further after %d errors", d.file, maxErrs))
	}
	return errors.Join(errs...)
}

func refLabels(ls []v2.Label) model.Labels {
	out := make([]model.Label, 0, len(ls))
	for _, l := range ls {
		if l.Source == "" {
			l.Source = model.SourceUnspec
		}
		out = append(out, model.Label{Source: l.Source, Key: l.Key, Value: l.Value})
	}
	return model.NewLabels(out...)
}

// rawKey is the key of a rule without a name. Neither the order of labels nor that of a file matters.
func rawKey(r v2.Rule, labels model.Labels) (string, error) {
	r.Labels = nil
	b, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(labels.Key()+"\n"), b...))
	return "rule/" + hex.EncodeToString(sum[:16]), nil
}
