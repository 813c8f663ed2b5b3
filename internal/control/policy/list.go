package policy

import (
	"cmp"
	"slices"

	"github.com/hypha-net/hypha/internal/model"
)

// fallback is what decides in a direction when no entry does.
type fallback struct {
	verdict uint8
	rule    model.RuleID
	denies  bool         // really denies: some policy that is not in audit mode, or the mode, wants default deny
	audit   model.RuleID // the default deny of policies in audit mode where no other one is; else 0
}

// implicit are the rules made for the fallback.
func (f fallback) implicit() []model.RuleID {
	switch {
	case f.audit != 0:
		return []model.RuleID{f.audit}
	case f.rule >= model.RuleUser:
		return []model.RuleID{f.rule}
	}
	return nil
}

// span is a range of ports of one protocol that an entry speaks of.
type span struct {
	lo, hi uint16
	e      *entry
}

// weight orders entries that would decide alike, so that the more specific one is named: fewer ports first.
func (s span) weight() int {
	if s.e.ports == nil {
		return portMax + 2
	}
	return int(s.hi) - int(s.lo) + 1
}

func better(a, b span) bool {
	if c := cmp.Compare(a.weight(), b.weight()); c != 0 {
		return c < 0
	}
	if (a.e.peers == nil) != (b.e.peers == nil) {
		return a.e.peers != nil
	}
	return a.e.place < b.e.place
}

// compileList resolves precedence among entries that all concern one peer in one direction. named are the
// ports that names stand for: in ingress rules the subject's, in egress rules the peer's. The result is
// disjoint and sorted, protocol 0 (any) last, as compact as the rules named in it allow.
func compileList(entries []*entry, fb fallback, named []model.NamedPort, audit bool) model.PolicyList {
	var all []span // every protocol
	protos := map[uint8][]span{}
	for _, e := range entries {
		if e.ports == nil {
			all = append(all, span{0, portMax, e})
			continue
		}
		for _, p := range e.ports {
			p.resolve(named, func(proto uint8, lo, hi uint16) { protos[proto] = append(protos[proto], span{lo, hi, e}) })
		}
	}
	list := model.PolicyList{DefaultVerdict: fb.verdict, DefaultRule: fb.rule}
	rest, restRule, decided := decide(all, fb)
	order := make([]uint8, 0, len(protos))
	for p := range protos {
		order = append(order, p)
	}
	slices.Sort(order)
	for _, p := range order {
		list.Entries = append(list.Entries, segments(p, protos[p], all, fb, rest, restRule, decided)...)
	}
	if decided && (rest != fb.verdict || restRule != fb.rule) {
		list.Entries = append(list.Entries, model.PolicyEntry{PortHi: portMax, Verdict: rest, Rule: restRule})
	}
	if audit {
		for i := range list.Entries {
			list.Entries[i].Verdict = audited(list.Entries[i].Verdict)
		}
		list.DefaultVerdict = audited(list.DefaultVerdict)
	}
	return list
}

func audited(v uint8) uint8 {
	if v == model.VerdictDeny {
		return model.VerdictDeny | model.VerdictAudit
	}
	return v
}

// segments cuts the ports of a protocol where some entry begins or ends, decides each piece, and joins equal
// neighbours. Pieces that decide as the protocols without entries do are left to what follows.
func segments(proto uint8, spans, all []span, fb fallback, rest uint8, restRule model.RuleID, decided bool) []model.PolicyEntry {
	cuts := []int{0, portMax + 1}
	for _, s := range spans {
		cuts = append(cuts, int(s.lo), int(s.hi)+1)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	var out []model.PolicyEntry
	var active []span
	next := 0
	for i := 0; i+1 < len(cuts); i++ {
		lo, hi := cuts[i], cuts[i+1]-1
		active = slices.DeleteFunc(active, func(s span) bool { return int(s.hi) < lo })
		for ; next < len(spans) && int(spans[next].lo) <= lo; next++ {
			active = append(active, spans[next])
		}
		if len(active) == 0 {
			continue
		}
		v, r, ok := decide(slices.Concat(active, all), fb)
		if !ok {
			v, r = fb.verdict, fb.rule
		}
		if wantV, wantR := rest, restRule; decided && v == wantV && r == wantR || !decided && v == fb.verdict && r == fb.rule {
			continue
		}
		if n := len(out); n > 0 && int(out[n-1].PortHi)+1 == lo && out[n-1].Verdict == v && out[n-1].Rule == r {
			out[n-1].PortHi = uint16(hi)
			continue
		}
		out = append(out, model.PolicyEntry{Proto: proto, PortLo: uint16(lo), PortHi: uint16(hi), Verdict: v, Rule: r})
	}
	return out
}

// decide is the precedence: allow-localhost, then tier by tier. In tier Normal enforced deny comes before allow; a default
// deny of it ends here, as sides that have one hold nothing of tier Baseline. A denial in audit mode is noted and has no
// other effect: what follows decides, and if that lets the packet pass, it is reported. False leaves it to the fallback.
func decide(spans []span, fb fallback) (verdict uint8, rule model.RuleID, ok bool) {
	var admin, baseline ordered
	var deny, auditDeny, allow *span
	pick := func(best **span, s *span) {
		if *best == nil || better(*s, **best) {
			*best = s
		}
	}
	for i := range spans {
		s := &spans[i]
		switch {
		case s.e.first:
			return model.VerdictAllow, s.e.rule, true
		case s.e.rank.tier == model.TierAdmin:
			admin.take(s.e)
		case s.e.rank.tier == model.TierBaseline:
			baseline.take(s.e)
		case s.e.deny && s.e.audit:
			pick(&auditDeny, s)
		case s.e.deny:
			pick(&deny, s)
		default:
			pick(&allow, s)
		}
	}
	note := admin.note()
	pass := func(e *entry) (uint8, model.RuleID, bool) {
		if note != nil {
			return model.VerdictDeny | model.VerdictAudit, note.rule, true
		}
		return model.VerdictAllow, e.rule, true
	}
	if e := admin.verdict(); e != nil {
		if e.deny {
			return model.VerdictDeny, e.rule, true
		}
		return pass(e)
	}
	if deny != nil {
		return model.VerdictDeny, deny.e.rule, true
	}
	if note == nil && auditDeny != nil {
		note = auditDeny.e
	}
	if allow != nil {
		return pass(allow.e)
	}
	if e := baseline.verdict(); e != nil {
		switch {
		case e.deny:
			return model.VerdictDeny, e.rule, true
		case note == nil && fb.audit != 0:
			return model.VerdictDeny | model.VerdictAudit, fb.audit, true
		case note == nil:
			note = baseline.note()
		}
		return pass(e)
	}
	if note == nil && fb.audit == 0 {
		note = baseline.note()
	}
	if note == nil || fb.denies {
		return 0, 0, false
	}
	return model.VerdictDeny | model.VerdictAudit, note.rule, true
}

// ordered holds the first entry of a tier that decides something, and the first denial in audit mode.
type ordered struct{ first, audit *entry }

func (o *ordered) take(e *entry) {
	best := &o.first
	if e.deny && e.audit {
		best = &o.audit
	}
	if *best == nil || compareEntries(e, *best) < 0 {
		*best = e
	}
}

// verdict is the entry that accepts or denies; nil when none does or the first says to pass on.
func (o *ordered) verdict() *entry {
	if o.first == nil || o.first.pass {
		return nil
	}
	return o.first
}

// note is the denial in audit mode that would have come first.
func (o *ordered) note() *entry {
	if o.audit == nil || o.first != nil && compareEntries(o.first, o.audit) < 0 {
		return nil
	}
	return o.audit
}

func equalList(a, b *model.PolicyList) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a == b || a.DefaultVerdict == b.DefaultVerdict && a.DefaultRule == b.DefaultRule && slices.Equal(a.Entries, b.Entries)
}
