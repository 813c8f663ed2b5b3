package connectivity

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// The shape of a JUnit report, as far as the field's tool fills it.
type (
	junitSuites struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Tests    int        `xml:"tests,attr"`
		Disabled int        `xml:"disabled,attr"`
		Errors   int        `xml:"errors,attr"`
		Failures int        `xml:"failures,attr"`
		Time     float64    `xml:"time,attr"`
		Suite    junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		ID         int             `xml:"id,attr"`
		Name       string          `xml:"name,attr"`
		Package    string          `xml:"package,attr"`
		Tests      int             `xml:"tests,attr"`
		Disabled   int             `xml:"disabled,attr,omitempty"`
		Errors     int             `xml:"errors,attr"`
		Failures   int             `xml:"failures,attr"`
		Skipped    int             `xml:"skipped,attr,omitempty"`
		Time       float64         `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		Classname string        `xml:"classname,attr"`
		Status    string        `xml:"status,attr"`
		Time      float64       `xml:"time,attr"`
		Skipped   *junitMessage `xml:"skipped"`
		Failure   *junitMessage `xml:"failure"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes what came of the tests of a suite to a file. Tests that were not come to count as skipped.
func WriteJUnit(file string, suite []*Test, begin time.Time, args []string, properties map[string]string) error {
	s := junitSuite{Name: "connectivity test", Package: "cilium", Timestamp: begin.Format("2006-01-02T15:04:05"),
		Properties: []junitProperty{{"Args", strings.Join(args, "|")}}}
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		s.Properties = append(s.Properties, junitProperty{key, properties[key]})
	}
	for _, t := range suite {
		c := junitCase{Name: t.Name, Classname: s.Name, Status: "passed", Time: t.seconds}
		switch {
		case t.failed():
			c.Status = "failed"
			var text []string
			if t.err != nil {
				text = append(text, t.err.Error())
			}
			for _, a := range t.actions {
				if a.Err != nil {
					text = append(text, fmt.Sprintf("%s: %s", a, a.Err))
				}
			}
			c.Failure = &junitMessage{Message: t.Name + " failed", Type: "failure", Text: strings.Join(text, "\n")}
			s.Failures++
		case t.skipped != "" || t.seconds == 0:
			c.Status = "skipped"
			why := t.skipped
			if why == "" {
				why = "not run"
			}
			c.Skipped = &junitMessage{Message: t.Name + " skipped: " + why}
			s.Skipped++
		}
		s.Tests++
		s.Time += c.Time
		s.Cases = append(s.Cases, c)
	}
	b, err := xml.MarshalIndent(junitSuites{Tests: s.Tests, Disabled: s.Skipped, Failures: s.Failures, Time: s.Time, Suite: s}, "", "  ")
	if err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	if err := os.WriteFile(file, append([]byte(xml.Header), append(b, '\n')...), 0o644); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	return nil
}
