package model

// RuleID names the rule behind a verdict. It is a stable hash of the rule's place, so an event recorded before a
// restart still names the same rule after it. Numbers below RuleUser are built in.
type RuleID uint32

// Built-in rules.
const (
	RuleNone       RuleID = 0 // nothing was asked
	RuleNoPolicy   RuleID = 1 // no policy selects the endpoint in this direction: allowed
	RuleModeNever  RuleID = 2 // enforcement mode "never"
	RuleModeAlways RuleID = 3 // enforcement mode "always" and no rule allows
	RuleLocalHost  RuleID = 4 // the node may reach its own workloads (allow-localhost)
	RuleUser       RuleID = 256
)

// Tier is a stage of judgement; lower numbers are asked first. The numbers are the published ones.
type Tier uint8

// The tiers.
const (
	TierAdmin    Tier = 100 // the administrator's word, whatever others say
	TierNormal   Tier = 200 // everybody's policies
	TierBaseline Tier = 250 // the administrator's word where Normal is silent
)

// String is the tier's name.
func (t Tier) String() string {
	switch t {
	case TierAdmin:
		return "Admin"
	case TierBaseline:
		return "Baseline"
	}
	return "Normal"
}

// RuleRef is what a RuleID stands for.
type RuleRef struct {
	ID RuleID `json:"id"`
	// Policies the verdict rests on: one for a rule, all that made the endpoint default-deny for an implicit deny.
	Policies []PolicyRef `json:"policies,omitempty"`
	Section  string      `json:"section,omitempty"` // "ingress[0]", "egressDeny[2]", or "" for an implicit deny
	Tier     Tier        `json:"tier,omitempty"`    // of an explicit rule
	Ingress  bool        `json:"ingress"`
	Deny     bool        `json:"deny"`
	Implicit bool        `json:"implicit,omitempty"` // default deny or a built-in
	Text     string      `json:"text"`               // one line for people
}

// KindNetworkPolicy is how policies of networking.k8s.io/v1 are called. Their CIDRs are blocks: they mean addresses, whoever
// lives there.
const KindNetworkPolicy = "NetworkPolicy"

// PolicyRef names a policy.
type PolicyRef struct {
	Kind      string `json:"kind,omitempty"` // CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, ClusterNetworkPolicy, NetworkPolicy, or "" for a raw rule
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Labels    Labels `json:"labels,omitempty"`
	Revision  uint64 `json:"revision,omitempty"`
}
