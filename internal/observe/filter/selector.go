package filter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// requirement is one term of a label selector.
type requirement struct {
	source, key string   // source "" = any
	op          string   // "exists", "absent", "in", "notin", ">", "<"
	values      []string // sorted
	number      int64
}

// selector compiles a Kubernetes label selector ("a=b, c in (d, e), !f, g") over labels written "source:key=value".
// A key may name the source of the label; without one it matches every source.
func (b *builder) selector(s string) (func([]string) bool, error) {
	reqs, err := parseSelector(s)
	if err == nil {
		err = b.budget.terms(len(reqs))
	}
	if err != nil {
		return nil, err
	}
	return func(labels []string) bool {
		for i := range reqs {
			if !reqs[i].match(labels) {
				return false
			}
		}
		return true
	}, nil
}

func (r *requirement) match(labels []string) bool {
	found := false
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		source, bare, ok := strings.Cut(key, ":")
		if !ok {
			source, bare = "", key
		}
		if bare != r.key || r.source != "" && source != r.source {
			continue
		}
		found = true
		switch r.op {
		case "exists":
			return true
		case "in":
			if r.holds(value) {
				return true
			}
		case "notin":
			if r.holds(value) {
				return false
			}
		case ">", "<":
			n, err := strconv.ParseInt(value, 10, 64)
			if err == nil && (r.op == ">" && n > r.number || r.op == "<" && n < r.number) {
				return true
			}
		}
	}
	return r.op == "notin" || r.op == "absent" && !found
}

func (r *requirement) holds(value string) bool {
	_, ok := slices.BinarySearch(r.values, value)
	return ok
}

// parseSelector splits at commas outside parentheses and reads each term.
func parseSelector(s string) ([]requirement, error) {
	var reqs []requirement
	depth, start := 0, 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == ',' && depth == 0:
			r, err := parseRequirement(strings.TrimSpace(s[start:i]))
			if err != nil {
				return nil, err
			}
			reqs = append(reqs, r)
			start = i + 1
		case s[i] == '(':
			depth++
		case s[i] == ')':
			depth--
		}
	}
	if depth != 0 {
		return nil, errors.New("label selector: the parentheses do not pair")
	}
	return reqs, nil
}

func parseRequirement(t string) (requirement, error) {
	if t == "" {
		return requirement{}, errors.New("label selector: empty term")
	}
	if rest, ok := strings.CutPrefix(t, "!"); ok {
		return withKey(requirement{op: "absent"}, rest)
	}
	if before, list, ok := strings.Cut(t, "("); ok {
		list, ok = strings.CutSuffix(list, ")")
		f := strings.Fields(before)
		if !ok || len(f) != 2 || f[1] != "in" && f[1] != "notin" {
			return requirement{}, fmt.Errorf("label selector: %q: want KEY in (VALUE, ...) or KEY notin (VALUE, ...)", t)
		}
		r := requirement{op: f[1]}
		for v := range strings.SplitSeq(list, ",") {
			r.values = append(r.values, strings.TrimSpace(v))
		}
		slices.Sort(r.values)
		return withKey(r, f[0])
	}
	for _, o := range []struct{ sign, op string }{{"!=", "notin"}, {"==", "in"}, {"=", "in"}, {">", ">"}, {"<", "<"}} {
		key, value, ok := strings.Cut(t, o.sign)
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		r := requirement{op: o.op, values: []string{value}}
		if o.op == ">" || o.op == "<" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return requirement{}, fmt.Errorf("label selector: %q: %s compares whole numbers", t, o.sign)
			}
			r.number = n
		}
		return withKey(r, key)
	}
	return withKey(requirement{op: "exists"}, t)
}

func withKey(r requirement, key string) (requirement, error) {
	key = strings.TrimSpace(key)
	if source, bare, ok := strings.Cut(key, ":"); ok {
		r.source, key = source, bare
		if r.source == "any" {
			r.source = ""
		}
	}
	if key == "" || strings.ContainsAny(key, " \t()!=<>,") {
		return r, fmt.Errorf("label selector: %q is no label key", key)
	}
	r.key = key
	return r, nil
}
