package connectivity

import (
	"regexp"
	"slices"
	"strings"
)

// Test is policies and what comes of them.
type Test struct {
	Name        string
	Policies    []string // names of manifests
	Ranged      bool     // ports are written as ranges
	Clusterwide bool     // the policies are those of the whole cluster
	Needs       []Need
	Skip        string // why it is never run: what it is about is not there
	Scenarios   []Scenario
	Want        func(s *Site, a *Action) Result // nil: OK

	actions []*Action
	skipped string
	left    []Scenario // that were skipped
	err     error      // what befell the test besides its actions
	seconds float64
}

func (t *Test) failed() bool { return t.err != nil || slices.ContainsFunc(t.actions, failedAction) }

func failedAction(a *Action) bool { return a.Err != nil }

// Selection picks tests and scenarios by regular expressions over "test/scenario"; those that begin with "!" leave out.
type Selection struct{ run, skip []*regexp.Regexp }

// Select reads the expressions.
func Select(expressions []string) (Selection, error) {
	var s Selection
	for _, e := range expressions {
		rest, not := strings.CutPrefix(e, "!")
		r, err := regexp.Compile(rest)
		if err != nil {
			return s, err
		}
		if not {
			s.skip = append(s.skip, r)
		} else {
			s.run = append(s.run, r)
		}
	}
	return s, nil
}

func (s Selection) wants(name string) bool {
	matches := func(r *regexp.Regexp) bool { return r.MatchString(name) }
	return !slices.ContainsFunc(s.skip, matches) && (len(s.run) == 0 || slices.ContainsFunc(s.run, matches))
}

// wantsAny says whether any scenario of a test is wanted, or the test where it has none.
func (s Selection) wantsAny(t *Test) bool {
	if len(t.Scenarios) == 0 {
		return s.wants(t.Name)
	}
	return slices.ContainsFunc(t.Scenarios, func(sc Scenario) bool { return s.wants(t.Name + "/" + sc.Name) })
}
