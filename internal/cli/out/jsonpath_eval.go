package out

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/hypha-net/hypha/internal/escape"
)

// Write evaluates the template on v.
func (p *Path) Write(w io.Writer, v any) error {
	t, err := tree(v)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := run(&b, p.parts, t); err != nil {
		return err
	}
	s := b.String()
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	_, err = io.WriteString(w, s)
	return err
}

func run(b *strings.Builder, parts []part, v any) error {
	for _, p := range parts {
		if p.steps == nil {
			b.WriteString(p.text)
			continue
		}
		found, err := walk(p.steps, v, true)
		if err != nil {
			return err
		}
		if !p.loop {
			for i, f := range found {
				if i > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(leaf(f))
			}
			continue
		}
		if len(found) == 1 {
			if l, ok := found[0].([]any); ok {
				found = l
			}
		}
		for _, f := range found {
			if err := run(b, p.body, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func leaf(v any) string {
	switch v := v.(type) {
	case string:
		return escape.Text(v)
	case Object, []any:
		raw, err := encode(v)
		if err != nil { // it was decoded from JSON
			return ""
		}
		return string(visible(raw, jsonWide))
	}
	return scalar(v)
}

// walk follows the steps; strict makes a missing key an error.
func walk(steps []step, v any, strict bool) ([]any, error) {
	cur := []any{v}
	for _, s := range steps {
		var next []any
		for _, c := range cur {
			got, many, err := s.apply(c)
			if err != nil {
				if strict {
					return nil, err
				}
				continue
			}
			strict = strict && !many
			next = append(next, got...)
		}
		cur = next
	}
	return cur, nil
}

func (s step) apply(v any) (got []any, many bool, err error) {
	list, isList := v.([]any)
	switch s.kind {
	case stepKey:
		if o, ok := v.(Object); ok {
			for _, f := range o {
				if f.Key == s.key {
					return []any{f.Value}, false, nil
				}
			}
		}
		return nil, false, fmt.Errorf("jsonpath: there is no %q here (has: %s)", s.key, keys(v))
	case stepIndex:
		n := s.index
		if n < 0 {
			n += len(list)
		}
		if !isList || n < 0 || n >= len(list) {
			return nil, false, fmt.Errorf("jsonpath: index %d is outside a list of %d", s.index, len(list))
		}
		return []any{list[n]}, false, nil
	case stepSlice:
		from, to := s.index, len(list)
		if s.to != nil {
			to = *s.to
		}
		if from < 0 {
			from += len(list)
		}
		if to < 0 {
			to += len(list)
		}
		from, to = min(max(from, 0), len(list)), min(max(to, 0), len(list))
		if from >= to {
			return nil, true, nil
		}
		return list[from:to], true, nil
	case stepAll:
		return children(v), true, nil
	case stepDeep:
		return deep(nil, v), true, nil
	default:
		for _, c := range children(v) {
			if s.holds(c) {
				got = append(got, c)
			}
		}
		return got, true, nil
	}
}

func children(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case Object:
		l := make([]any, len(v))
		for i, f := range v {
			l[i] = f.Value
		}
		return l
	}
	return nil
}

func deep(got []any, v any) []any {
	got = append(got, v)
	for _, c := range children(v) {
		got = deep(got, c)
	}
	return got
}

func keys(v any) string {
	o, ok := v.(Object)
	if !ok {
		return "no fields"
	}
	names := make([]string, len(o))
	for i, f := range o {
		names[i] = f.Key
	}
	return escape.Text(strings.Join(names, ", "))
}

func (s step) holds(v any) bool {
	found, err := walk(s.test, v, false)
	if err != nil || len(found) == 0 {
		return false
	}
	if s.op == "" {
		return true
	}
	have := ""
	switch f := found[0].(type) {
	case string:
		have = f
	default:
		have = leaf(f)
	}
	c := strings.Compare(have, s.want)
	if a, err := json.Number(have).Float64(); err == nil {
		if b, err := json.Number(s.want).Float64(); err == nil {
			c = cmp.Compare(a, b)
		}
	}
	switch s.op {
	case "==":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case ">":
		return c > 0
	case "<=":
		return c <= 0
	}
	return c >= 0
}
