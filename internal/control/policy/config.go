package policy

import "fmt"

// Mode says when policy is enforced.
type Mode string

// The modes.
const (
	ModeDefault Mode = "default" // where a policy puts a workload into default deny, and deny rules
	ModeAlways  Mode = "always"  // everywhere; nothing passes that no policy allows
	ModeNever   Mode = "never"   // nowhere
)

// Localhost says whether the node may reach its own workloads whatever the policy.
type Localhost string

// The ways to treat the node's own traffic.
const (
	LocalhostAlways Localhost = "always" // before every rule
	LocalhostPolicy Localhost = "policy" // as any other peer
)

// Config holds the node's settings. The zero value means: default mode, localhost always, both IP versions.
type Config struct {
	Mode           Mode
	AllowLocalhost Localhost
	Audit          bool // every denial is reported and passes
	CIDRMatchNodes bool // policy-cidr-match-mode: nodes. CIDR rules match nodes too, by where they live
	// Cluster is the name of the local cluster, for the entity "cluster". Workloads without a cluster label are local.
	Cluster string
	// IPv4 and IPv6 say which versions are in use; none means both. With one, identity 2 (world) is the world of that one.
	IPv4, IPv6 bool
	// Filter is what labels identities have, to tell of policies that ask for others; nil: all.
	Filter Filter
}

func (c Config) withDefaults() (Config, error) {
	if c.Mode == "" {
		c.Mode = ModeDefault
	}
	if c.AllowLocalhost == "" {
		c.AllowLocalhost = LocalhostAlways
	}
	if !c.IPv4 && !c.IPv6 {
		c.IPv4, c.IPv6 = true, true
	}
	switch c.Mode {
	case ModeDefault, ModeAlways, ModeNever:
	default:
		return c, fmt.Errorf("enforcement mode %q: want default, always or never", c.Mode)
	}
	switch c.AllowLocalhost {
	case LocalhostAlways, LocalhostPolicy:
	default:
		return c, fmt.Errorf("allow-localhost %q: want always or policy", c.AllowLocalhost)
	}
	return c, nil
}
