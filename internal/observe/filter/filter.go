// Package filter decides which flows a reader wants. Filters are compiled once, with an error for whatever cannot be
// understood, and then asked for each flow; any flow may be given, also one with fields missing.
package filter

import (
	"fmt"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// Most filters of one request, and most values in one of them: a request must not buy unbounded work per flow.
const (
	MaxFilters = 256
	MaxValues  = 4096
)

// Test says whether a flow matches.
type Test func(*flowpb.Flow) bool

// Set is a compiled pair of lists. The zero value takes every flow.
type Set struct {
	allow, deny []Test
}

// Compile compiles both lists of a request. A flow is taken when a filter of allow matches (or there is none) and no
// filter of deny does.
func Compile(allow, deny []*flowpb.FlowFilter) (Set, error) {
	var s Set
	left := newBudget()
	for _, l := range []struct {
		name string
		in   []*flowpb.FlowFilter
		out  *[]Test
	}{{"whitelist", allow, &s.allow}, {"blacklist", deny, &s.deny}} {
		if len(l.in) > MaxFilters {
			return Set{}, fmt.Errorf("%s: %d filters, at most %d are allowed", l.name, len(l.in), MaxFilters)
		}
		for i, f := range l.in {
			t, err := compileOne(f, left)
			if err != nil {
				return Set{}, fmt.Errorf("%s[%d]: %w", l.name, i, err)
			}
			*l.out = append(*l.out, t)
		}
	}
	return s, nil
}

// Match says whether the set takes a flow.
func (s Set) Match(f *flowpb.Flow) bool {
	if f == nil {
		return false
	}
	for _, t := range s.deny {
		if t(f) {
			return false
		}
	}
	for _, t := range s.allow {
		if t(f) {
			return true
		}
	}
	return len(s.allow) == 0
}

// CompileOne compiles a single filter: all fields that are set must match, of each field's values any. An empty filter
// matches every flow.
func CompileOne(f *flowpb.FlowFilter) (Test, error) { return compileOne(f, newBudget()) }

func compileOne(f *flowpb.FlowFilter, left *budget) (Test, error) {
	b := &builder{f: f, budget: left}
	for _, part := range []func(*builder){addresses, names, transport, application, event, node, expression} {
		part(b)
	}
	if b.err != nil {
		return nil, b.err
	}
	tests := b.tests
	return func(f *flowpb.Flow) bool {
		for _, t := range tests {
			if !t(f) {
				return false
			}
		}
		return true
	}, nil
}

// builder collects the tests of one filter; the first error stays.
type builder struct {
	f      *flowpb.FlowFilter
	budget *budget
	tests  []Test
	err    error
}

func (b *builder) add(t Test) { b.tests = append(b.tests, t) }

func (b *builder) fail(field string, value any, err error) {
	if b.err == nil {
		b.err = fmt.Errorf("%s %q: %s", field, brief(value), brief(err)) // parsers like to quote all they were given
	}
}

// brief is the beginning of a value, for messages.
func brief(value any) string {
	const most = 200
	s := fmt.Sprint(value)
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// anyOf adds a test for a field: parse makes a matcher of each value, get takes from the flow what they look at.
func anyOf[V, G any](b *builder, field string, values []V, parse func(V) (func(G) bool, error), get func(*flowpb.Flow) G) {
	if len(values) == 0 || b.err != nil {
		return
	}
	if len(values) > MaxValues {
		b.err = fmt.Errorf("%s: %d values, at most %d are allowed", field, len(values), MaxValues)
		return
	}
	ms := make([]func(G) bool, 0, len(values))
	for _, v := range values {
		m, err := parse(v)
		if err != nil {
			b.fail(field, v, err)
			return
		}
		ms = append(ms, m)
	}
	b.add(func(f *flowpb.Flow) bool {
		g := get(f)
		for _, m := range ms {
			if m(g) {
				return true
			}
		}
		return false
	})
}

// oneOf adds a test that a field of the flow equals one of the values.
func oneOf[V comparable](b *builder, field string, values []V, get func(*flowpb.Flow) V) {
	anyOf(b, field, values, func(v V) (func(V) bool, error) { return func(g V) bool { return g == v }, nil }, get)
}
