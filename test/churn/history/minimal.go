package history

import (
	"slices"
	"strings"
)

// Minimal drops the changes without which a probe is judged just the same, the oldest first. Kills that met the probe stay:
// they are no reason in the model, but may be one in the world.
func Minimal(cfg Config, changes []Change, p Probe) []Change {
	why := NewJudge(cfg, changes).Check(p)
	if why == "" {
		return nil
	}
	w := span{p.Sent - cfg.Bound, max(p.Sent, p.Heard, p.Answered) + cfg.Wait}
	left := slices.Clone(changes)
	for i := 0; i < len(left); {
		if c := left[i]; c.Kind == Kill {
			if w.meets(span{c.Begin, c.End}) {
				i++
			} else {
				left = slices.Delete(left, i, i+1)
			}
			continue
		}
		if less := slices.Delete(slices.Clone(left), i, i+1); NewJudge(cfg, less).Check(p) == why {
			left = less
		} else {
			i++
		}
	}
	return left
}

// Explain is a counterexample for people: the probe, what is wrong with it, and the changes that matter.
func Explain(cfg Config, changes []Change, p Probe) string {
	var b strings.Builder
	b.WriteString(p.String() + "\n  " + NewJudge(cfg, changes).Check(p) + "; the changes that matter:\n")
	for _, c := range Minimal(cfg, changes, p) {
		b.WriteString("  " + c.String() + "\n")
	}
	return b.String()
}
