package filter

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// What one request may ask of every flow. A regular expression takes time in proportion to its program and to the text, and
// a short one may have a long program: "(a?){1000}".
const (
	regexMax = 1024 // instructions of all regular expressions together
	celCount = 8    // expressions
	termMax  = 4096 // terms of all label selectors together
)

// budget is what is left of it.
type budget struct{ regex, cel, term int }

func newBudget() *budget { return &budget{regex: regexMax, cel: celCount, term: termMax} }

// compile compiles a regular expression, if it can be afforded.
func (b *budget) compile(pattern string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if b.regex -= len(prog.Inst); b.regex < 0 {
		return nil, fmt.Errorf("the regular expressions of a request may compile to %d instructions together", regexMax)
	}
	return regexp.Compile(pattern)
}

// expression allows another CEL expression.
func (b *budget) expression() error {
	if b.cel--; b.cel < 0 {
		return fmt.Errorf("a request may have %d expressions", celCount)
	}
	return nil
}

// terms allows that many terms of label selectors.
func (b *budget) terms(n int) error {
	if b.term -= n; b.term < 0 {
		return fmt.Errorf("the label selectors of a request may have %d terms together", termMax)
	}
	return nil
}
