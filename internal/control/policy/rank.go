package policy

import (
	"cmp"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// rank is when an entry is asked: tiers in order; within Admin and Baseline by priority, lower numbers first, then by rule.
// In tier Normal all are asked at once. It is compared field by field and never packed into one number, which could
// overflow into another tier or priority (CVE-2026-25804).
type rank struct {
	tier     model.Tier
	priority int32
	policy   string // key
	index    int    // of the rule in its policy
}

// compareEntries puts entries in the order in which they are asked. Policies of one priority, between which the published
// language leaves the choice, go by name.
func compareEntries(a, b *entry) int {
	if c := cmp.Compare(a.rank.tier, b.rank.tier); c != 0 {
		return c
	}
	if a.rank.tier == model.TierNormal {
		return strings.Compare(a.place, b.place)
	}
	if c := cmp.Compare(a.rank.priority, b.rank.priority); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.rank.policy, b.rank.policy), cmp.Compare(a.rank.index, b.rank.index))
}
