package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/hypha-net/hypha/internal/model"
)

// set is a compiled policy: what workloads under the same entries, with the same fallbacks, share.
type set struct {
	key      string
	num      model.SetID // 0: none yet
	refs     int         // local subjects
	sides    [2]*side    // by direction
	implicit []model.RuleID
	sels     []use // acquired, once attached
	names    []string
}

// use is a selector that an entry acquired; the entry may take away what another one allows if it denies.
type use struct {
	*liveSel
	denies bool
}

// side is one direction of a set.
type side struct {
	dir      model.Direction
	entries  []*entry // in the order in which they are asked
	fallback fallback
	audit    bool
	enforced bool
	named    []model.NamedPort // ingress: of the subject
	byName   bool              // some entry names a port of the peer

	bySel map[*liveSel][]int // live selector -> entries; only of an attached set
	any   []byte             // mask of the entries for everybody
	lists map[string]*model.PolicyList
}

// subjectOf is what makes the policy of a workload.
type subjectOf struct {
	labels model.Labels
	ports  []model.NamedPort
	audit  bool
}

// newSet gathers what a workload is under. The implicit rules it makes are released with dropSet.
func (e *Engine) newSet(sub subjectOf) *set {
	var rules []*rule
	seen := map[*rule]bool{}
	if e.cfg.Mode != ModeNever {
		e.subjects.candidates(sub.labels, func(r *rule) {
			if !seen[r] && matchAll(r.subject, sub.labels) {
				rules = append(rules, r)
			}
			seen[r] = true
		})
	}
	s := &set{}
	var key strings.Builder
	for _, dir := range []model.Direction{model.Ingress, model.Egress} {
		sd := e.newSide(dir, rules, sub)
		s.sides[dir] = sd
		s.implicit = append(s.implicit, sd.fallback.implicit()...)
		fmt.Fprintf(&key, "%d %+v %t %s\n", dir, sd.fallback, sd.audit, portsKey(sd.named))
		for _, en := range sd.entries {
			key.WriteString(en.content + "\n")
		}
	}
	sum := sha256.Sum256([]byte(key.String()))
	s.key = hex.EncodeToString(sum[:])
	return s
}

func (e *Engine) newSide(dir model.Direction, rules []*rule, sub subjectOf) *side {
	sd := &side{dir: dir, audit: sub.audit || e.cfg.Audit, lists: map[string]*model.PolicyList{}}
	var requires []requirement
	for _, r := range rules {
		requires = append(requires, r.requires[dir]...)
	}
	requires = canonical(requires)
	usesNames := false
	var isolated bool
	sd.fallback, isolated = e.fallback(dir, rules)
	for _, r := range rules {
		for _, en := range r.entries {
			if en.dir != dir || isolated && en.rank.tier == model.TierBaseline {
				continue
			}
			if en.endpoints && !en.deny && len(requires) > 0 {
				limited := *en
				limited.peers = en.peers.with(requires)
				limited.content = limited.describe()
				en = &limited
			}
			usesNames = usesNames || slices.ContainsFunc(en.ports, func(p portSpec) bool { return p.name != "" })
			sd.entries = append(sd.entries, en)
		}
	}
	sd.enforced = e.cfg.Mode != ModeNever && (sd.fallback.verdict != model.VerdictAllow || len(sd.entries) > 0)
	if dir == model.Ingress && sd.enforced && e.cfg.AllowLocalhost == LocalhostAlways {
		sd.entries = append(sd.entries, localhost())
	}
	if usesNames && dir == model.Ingress {
		sd.named = sortedPorts(sub.ports)
	}
	sd.byName = usesNames && dir == model.Egress
	slices.SortFunc(sd.entries, compareEntries)
	sd.any = make([]byte, (len(sd.entries)+7)/8)
	for i, en := range sd.entries {
		if en.peers == nil {
			sd.any[i/8] |= 1 << (i % 8)
		}
	}
	return sd
}

func sortedPorts(in []model.NamedPort) []model.NamedPort {
	out := slices.Clone(in)
	slices.SortFunc(out, comparePort)
	return slices.Compact(out)
}

// localhost lets the node reach its workloads.
func localhost() *entry {
	e := &entry{dir: model.Ingress, rank: rank{tier: model.TierAdmin}, first: true, rule: model.RuleLocalHost,
		peers: newPeers([]term{{reqs: []requirement{{source: model.SourceReserved, key: "host", op: "Exists"}}}})}
	e.content = e.describe()
	return e
}

// fallback is the default of a direction, and names the policies behind it. It is isolated when that is the last word of
// tier Normal, so that nothing is left to Baseline.
func (e *Engine) fallback(dir model.Direction, rules []*rule) (fb fallback, isolated bool) {
	if e.cfg.Mode == ModeNever {
		return fallback{verdict: model.VerdictAllow, rule: model.RuleModeNever}, false
	}
	enforced, audit := map[string]model.PolicyRef{}, map[string]model.PolicyRef{}
	for _, r := range rules {
		if !r.defaultDeny[dir] {
			continue
		}
		p := r.policy.policy
		if p.Audit {
			audit[p.Key] = p.Ref
		} else {
			enforced[p.Key] = p.Ref
		}
	}
	if len(enforced) > 0 {
		return fallback{verdict: model.VerdictDeny, rule: e.implicit(dir, enforced, false), denies: true}, true
	}
	fb = fallback{verdict: model.VerdictAllow, rule: model.RuleNoPolicy}
	if len(audit) > 0 {
		fb.audit = e.implicit(dir, audit, true)
		fb.verdict, fb.rule = model.VerdictDeny|model.VerdictAudit, fb.audit
	}
	if e.cfg.Mode == ModeAlways {
		fb.verdict, fb.rule, fb.denies = model.VerdictDeny, model.RuleModeAlways, true
	}
	return fb, false
}

func (e *Engine) implicit(dir model.Direction, by map[string]model.PolicyRef, audit bool) model.RuleID {
	keys := make([]string, 0, len(by))
	for k := range by {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	ref := model.RuleRef{Ingress: dir == model.Ingress, Deny: true, Implicit: true}
	names := make([]string, len(keys))
	for i, k := range keys {
		ref.Policies = append(ref.Policies, by[k])
		names[i] = name(by[k], k)
	}
	ref.Text = fmt.Sprintf("%s default deny, because of %s", dir, strings.Join(names, ", "))
	if audit {
		ref.Text += " (audit)"
	}
	return e.ids.user("implicit|"+dir.String()+"|"+strings.Join(keys, "|"), ref)
}

// list is the compiled list for peers that match the entries of the mask.
func (sd *side) list(mask []byte, named []model.NamedPort) *model.PolicyList {
	if !sd.byName {
		named = sd.named
	}
	key := string(mask)
	if sd.byName {
		key += portsKey(named)
	}
	if l := sd.lists[key]; l != nil {
		return l
	}
	var entries []*entry
	for i, en := range sd.entries {
		if mask[i/8]&(1<<(i%8)) != 0 {
			entries = append(entries, en)
		}
	}
	l := compileList(entries, sd.fallback, named, sd.audit)
	sd.lists[key] = &l
	return &l
}

// anyList is the list of peers that no selector names.
func (sd *side) anyList() *model.PolicyList { return sd.list(sd.any, nil) }

// forCell is the list for a cell, nil where that of everybody will do; only for an attached set.
func (sd *side) forCell(c *cell) *model.PolicyList {
	var mask []byte
	for _, s := range c.sels {
		for _, i := range sd.bySel[s] {
			if mask == nil {
				mask = slices.Clone(sd.any)
			}
			mask[i/8] |= 1 << (i % 8)
		}
	}
	if mask == nil {
		if !sd.byName || len(c.named) == 0 {
			return nil
		}
		mask = sd.any
	}
	if l := sd.list(mask, c.named); !equalList(l, sd.anyList()) {
		return l
	}
	return nil
}

// forPeer is the same for any identity and any set, by asking every entry.
func (sd *side) forPeer(id *identity) *model.PolicyList {
	mask := slices.Clone(sd.any)
	for i, en := range sd.entries {
		if en.peers != nil && en.peers.matches(id) {
			mask[i/8] |= 1 << (i % 8)
		}
	}
	return sd.list(mask, id.ports)
}

// row is what the kernel holds for a class: nil where the list of everybody will do.
func (s *set) row(c *cell) [2]*model.PolicyList {
	return [2]*model.PolicyList{s.sides[0].forCell(c), s.sides[1].forCell(c)}
}

// concerns calls f for the cells that have a row of their own in the set, and perhaps others.
func (s *set) concerns(cells map[string]*cell, f func(*cell)) {
	for _, sel := range s.sels {
		for c := range sel.cells {
			f(c)
		}
	}
	if len(s.names) > 0 {
		for _, c := range cells {
			if len(c.named) > 0 {
				f(c)
			}
		}
	}
}

func (s *set) anyRow() [2]*model.PolicyList {
	return [2]*model.PolicyList{s.sides[0].anyList(), s.sides[1].anyList()}
}
