package history

import (
	"math"
	"slices"
	"time"

	"github.com/hypha-net/hypha/internal/control/policy/oracle"
	"github.com/hypha-net/hypha/internal/model"
)

// Port is where probes are sent to, by UDP.
const Port = 7777

// forever ends what no change ends.
const forever = time.Duration(math.MaxInt64)

// span is when something may be in force.
type span struct{ from, to time.Duration }

func (s span) meets(o span) bool { return s.from <= o.to && o.from <= s.to }

// state is a set of policies and when it may be in force.
type state struct {
	span
	policies []oracle.Policy
}

// version is a label set of a pod.
type version struct {
	span
	labels model.Labels
}

// life of a pod.
type life struct {
	place    int
	versions []version
	sure     span   // it is attached for certain
	unheard  []span // another identity is its own, or about to be, while a node cannot hear of it
}

// question is one judgement: which policies, which label sets.
type question struct {
	dir                       model.Direction
	state                     int
	self, other               int
	selfVersion, otherVersion int
}

// Judge knows which verdict was legal when.
type Judge struct {
	cfg    Config
	states []state
	lives  map[int]*life
	known  map[question]bool
}

// NewJudge reads the changes of a run. They may overlap, except those of policies and those of one pod, among themselves.
func NewJudge(cfg Config, changes []Change) *Judge {
	j := &Judge{cfg: cfg, lives: map[int]*life{}, known: map[question]bool{}, states: []state{{span: span{0, forever}}}}
	policies := map[string]oracle.Policy{}
	for _, c := range slices.SortedStableFunc(slices.Values(changes), func(a, b Change) int { return int(a.Begin - b.Begin) }) {
		switch c.Kind {
		case PutPolicy, DropPolicy:
			delete(policies, c.Name)
			if c.Kind == PutPolicy {
				policies[c.Name] = c.Policy
			}
			j.states[len(j.states)-1].to = c.End
			next := state{span: span{c.Begin, forever}}
			for _, p := range policies {
				next.policies = append(next.policies, p)
			}
			j.states = append(j.states, next)
		case AddPod:
			j.lives[c.Pod] = &life{place: c.Place, sure: span{c.End, forever}, versions: []version{{span{c.Begin, forever}, c.Labels}}}
		case Relabel:
			if l := j.lives[c.Pod]; l != nil {
				l.versions[len(l.versions)-1].to = c.End
				l.versions = append(l.versions, version{span{c.Begin, forever}, c.Labels})
			}
		case DeletePod:
			if l := j.lives[c.Pod]; l != nil {
				l.versions[len(l.versions)-1].to = c.End
				l.sure.to = c.Begin
			}
		case Kill:
		}
	}
	j.deafen(changes)
	return j
}

// deafen notes which changes of labels a node could not hear of at once: it refuses the pod meanwhile (docs/architecture.md).
func (j *Judge) deafen(changes []Change) {
	for _, kill := range changes {
		if kill.Kind != Kill {
			continue
		}
		for _, c := range changes {
			if c.Kind == Relabel && (span{c.Begin, c.End}).meets(span{kill.Begin, kill.End}) && j.lives[c.Pod] != nil {
				j.lives[c.Pod].unheard = append(j.lives[c.Pod].unheard, span{c.Begin, c.End})
			}
		}
	}
}

// Check says what is wrong with a probe, "" when nothing is.
func (j *Judge) Check(p Probe) string {
	if p.Heard == 0 {
		if p.Answered != 0 {
			return "an echo of what nobody heard"
		}
		if !j.refusable(p, p.Sent) {
			return "refused while it was allowed"
		}
		return ""
	}
	from, to, by := j.lives[p.From], j.lives[p.To], j.lives[p.By]
	if from == nil || to == nil || by == nil || to.place != by.place {
		return "heard by a pod at another address"
	}
	if why := j.passed(p, span{p.Sent, p.Heard}); why != "" {
		return why
	}
	if p.Answered == 0 {
		if p.By == p.To && !j.refusable(p, p.Heard) {
			return "its echo was refused while it was allowed"
		}
		return ""
	}
	if why := j.passed(p, span{p.Heard, p.Answered}); why != "" {
		return "its echo " + why
	}
	return ""
}

// passed says why a datagram that passed within a window should not have.
func (j *Judge) passed(p Probe, w span) string {
	// For the sender's node the address may still be that of the pod before.
	if !j.any(model.Egress, p.From, p.To, w, true) && !j.any(model.Egress, p.From, p.By, w, true) {
		return "passed against the sender's policy"
	}
	if !j.any(model.Ingress, p.By, p.From, w, true) {
		return "passed against the receiver's policy"
	}
	return ""
}

// refusable says whether a datagram that was on its way at a time might be refused.
func (j *Judge) refusable(p Probe, at time.Duration) bool {
	w := span{at - j.cfg.Bound, at + j.cfg.Wait}
	for _, id := range []int{p.From, p.To} {
		l := j.lives[id]
		if l == nil || w.from < l.sure.from || w.to > l.sure.to || slices.ContainsFunc(l.unheard, w.meets) {
			return true
		}
	}
	return j.any(model.Egress, p.From, p.To, w, false) || j.any(model.Ingress, p.To, p.From, w, false)
}

// any says whether at some moment of the window one side could come to a verdict.
func (j *Judge) any(dir model.Direction, self, other int, w span, allow bool) bool {
	a, b := j.lives[self], j.lives[other]
	if a == nil || b == nil {
		return false
	}
	for s := range j.statesIn(w) {
		for i := range versionsIn(a, w) {
			for k := range versionsIn(b, w) {
				if j.ask(question{dir, s, self, other, i, k}) == allow {
					return true
				}
			}
		}
	}
	return false
}

func (j *Judge) statesIn(w span) func(func(int) bool) {
	// Ends rise with begins, so the first that has not ended is found by halving.
	first, _ := slices.BinarySearchFunc(j.states, w.from, func(s state, t time.Duration) int {
		if s.to < t {
			return -1
		}
		return 1
	})
	return func(yield func(int) bool) {
		for i := first; i < len(j.states) && j.states[i].from <= w.to; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

func versionsIn(l *life, w span) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i, v := range l.versions {
			if v.meets(w) && !yield(i) {
				return
			}
		}
	}
}

func (j *Judge) ask(q question) bool {
	verdict, ok := j.known[q]
	if !ok {
		w := oracle.World{Mode: "default", IPv4: true, IPv6: true, Policies: j.states[q.state].policies}
		end := func(pod, version int) oracle.End { return oracle.End{Labels: j.lives[pod].versions[version].labels} }
		verdict = w.Judge(q.dir, end(q.self, q.selfVersion), end(q.other, q.otherVersion), oracle.Packet{Proto: 17, Port: Port}) == model.VerdictAllow
		j.known[q] = verdict
	}
	return verdict
}
