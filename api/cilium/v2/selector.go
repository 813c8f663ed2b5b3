package v2

// LabelSelector selects by labels: all of MatchLabels and all of MatchExpressions must hold, so the empty one selects
// everything in its scope. Keys may start with a source ("k8s:app"); without one any source will do.
//
// +kubebuilder:pruning:PreserveUnknownFields
type LabelSelector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitzero"`
	MatchExpressions []Requirement     `json:"matchExpressions,omitzero"`
}

// Operator relates a key to values.
//
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type Operator string

// The operators. NotIn and DoesNotExist hold for workloads without the key.
const (
	OpIn           Operator = "In"
	OpNotIn        Operator = "NotIn"
	OpExists       Operator = "Exists"
	OpDoesNotExist Operator = "DoesNotExist"
)

// Requirement is one expression of a selector.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Requirement struct {
	Key      string   `json:"key"`
	Operator Operator `json:"operator"`
	Values   []string `json:"values,omitzero"`
}
