package main

import "fmt"

// Outcomes of a spec.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// spec is what one came to.
type spec struct {
	name    string
	outcome string
	reason  string // why it failed or was skipped
	seconds float64
}

type counts struct{ passed, failed, skipped int }

func count(specs []spec) counts {
	var c counts
	for _, s := range specs {
		switch s.outcome {
		case passed:
			c.passed++
		case failed:
			c.failed++
		default:
			c.skipped++
		}
	}
	return c
}

func (c counts) String() string {
	return fmt.Sprintf("%d specs: %d passed, %d failed, %d skipped", c.passed+c.failed+c.skipped, c.passed, c.failed, c.skipped)
}
