package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ginkgoReport is what ginkgo's own JSON report says, as far as it is of interest. It is taken rather than the JUnit one: that has no place
// for a spec's name alone, and none for why ginkgo itself left a spec out.
type ginkgoReport struct {
	SuiteDescription           string
	SpecialSuiteFailureReasons []string
	SpecReports                []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
		RunTime                 time.Duration
		Failure                 struct {
			Message        string
			ForwardedPanic string
		}
	}
}

// readGinkgo reads the specs in focus. Those that were left out for want of something are skipped for that reason; a spec that was to be run
// and was not, and a set-up of the suite that failed, are failures.
func readGinkgo(r io.Reader, focus *regexp.Regexp, lacking []lack) ([]spec, error) {
	var reports []ginkgoReport
	if err := json.NewDecoder(r).Decode(&reports); err != nil {
		return nil, fmt.Errorf("read the report of ginkgo: %w", err)
	}
	var out []spec
	for _, report := range reports {
		for _, s := range report.SpecReports {
			name := strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
			if s.LeafNodeType != "It" {
				if s.State == passed {
					continue
				}
				name = s.LeafNodeType
			} else if !focus.MatchString(name) {
				continue
			}
			one := spec{name: name, outcome: s.State, reason: cmp.Or(s.Failure.Message, s.Failure.ForwardedPanic), seconds: s.RunTime.Seconds()}
			if s.State == "pending" {
				one.outcome, one.reason = skipped, cmp.Or(one.reason, s.State)
			} else if s.State != passed && s.State != skipped {
				one.outcome, one.reason = failed, cmp.Or(one.reason, s.State)
			}
			if s.State == skipped && one.reason == "" {
				one.outcome, one.reason = leftOut(name, lacking)
			}
			out = append(out, one)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the report of ginkgo has none of the specs that were to be run")
	}
	slices.SortFunc(out, func(a, b spec) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// leftOut says what becomes of a spec that was not begun and does not say why.
func leftOut(name string, lacking []lack) (outcome, reason string) {
	for _, l := range lacking {
		if l.spec.MatchString(name) {
			return skipped, l.reason
		}
	}
	return failed, "not run: the run ended before"
}
