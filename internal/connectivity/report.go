package connectivity

import "slices"

// count is the sum of a suite.
type count struct{ tests, actions, skipped, left, failed, failedActions int }

func sum(suite []*Test) (c count) {
	for _, t := range suite {
		c.tests++
		c.actions += len(t.actions)
		c.left += len(t.left)
		if t.skipped != "" {
			c.skipped++
		}
		if t.failed() {
			c.failed++
		}
		for _, a := range t.actions {
			if a.Err != nil {
				c.failedActions++
			}
		}
	}
	return c
}

// report prints the end of a run in the field's words.
func (r *runner) report(suite []*Test) error {
	c := sum(suite)
	ran := c.tests - c.skipped
	r.log.Line("", "")
	if c.failed == 0 {
		r.log.Line("✅ ", "[%s] All %d tests (%d actions) successful, %d tests skipped, %d scenarios skipped.", r.name, ran, c.actions, c.skipped, c.left)
		return nil
	}
	r.log.Line("📋 ", "Test Report [%s]", r.name)
	r.log.Line(markFail, "%d/%d tests failed (%d/%d actions), %d tests skipped, %d scenarios skipped:", c.failed, ran, c.failedActions, c.actions, c.skipped, c.left)
	for _, t := range suite {
		if !t.failed() {
			continue
		}
		r.log.Line("", "Test [%s]:", t.Name)
		if t.err != nil {
			r.log.Line("  "+markFail, "%s", t.err)
		}
		for _, a := range slices.DeleteFunc(slices.Clone(t.actions), func(a *Action) bool { return a.Err == nil }) {
			r.log.Line("  "+markFail, "%s", a)
		}
	}
	return &FailedError{Tests: c.failed}
}
