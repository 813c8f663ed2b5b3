package history

import (
	"slices"
	"strings"
)

// Minimal drops the changes without which a probe is judged just the same, the oldest first.
func Minimal(cfg Config, changes []Change, p Probe) []Change {
	why := NewJudge(cfg, changes).Check(p)
	if why == "" {
		return nil
	}
	left := slices.Clone(changes)
	for i := 0; i < len(left); {
		if less := slices.Delete(slices.Clone(left), i, i+1); NewJudge(cfg, less).Check(p) == why {
			left = less
		} else {
			i++
		}
	}
	return left
}

// meanwhile are the changes that met a probe: no reason in the model, but one of them may be the cause in the world.
func meanwhile(cfg Config, changes []Change, p Probe) []Change {
	w := span{p.Sent - cfg.Wait, max(p.Sent, p.Heard, p.Answered) + cfg.Wait}
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return !w.meets(span{c.Begin, c.End}) })
}

// Explain is a counterexample for people: the probe, what is wrong with it, and the changes that matter.
func Explain(cfg Config, changes []Change, p Probe) string {
	var b strings.Builder
	b.WriteString(p.String() + "\n  " + NewJudge(cfg, changes).Check(p) + "; the changes that matter:\n")
	for _, c := range Minimal(cfg, changes, p) {
		b.WriteString("  " + c.String() + "\n")
	}
	b.WriteString("  and those that went on meanwhile:\n")
	for _, c := range meanwhile(cfg, changes, p) {
		b.WriteString("  " + c.String() + "\n")
	}
	return b.String()
}
