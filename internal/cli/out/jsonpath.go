package out

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Path is a JSONPath template as kubectl's users write it: text with {expressions}. An expression is a path
// (`{.status.id}`, `{[*].labels[0]}`, `{$.items[-1].name}`, `{['key.with.dots']}`, `{.a[1:3]}`, `{[?(@.id==7)].name}`,
// `{..name}`), a quoted text (`{"\n"}`) or `{range PATH}...{end}`. Several results are joined by a space; objects and
// lists are written as JSON. A path that leads nowhere is an error, inside [*] and filters it is nothing.
type Path struct{ parts []part }

type part struct {
	text  string
	steps []step // nil: text
	body  []part // of a range
	loop  bool
}

type step struct {
	kind  stepKind
	key   string
	index int
	to    *int // slice end, nil = open
	test  []step
	op    string
	want  string
}

type stepKind int

const (
	stepKey stepKind = iota
	stepIndex
	stepSlice
	stepAll
	stepFilter
	stepDeep
)

// ParsePath reads a template. A bare path without braces (`.status.id`) is taken as one expression.
func ParsePath(s string) (*Path, error) {
	if s == "" {
		return nil, errors.New("empty jsonpath: want for example {[*].id}")
	}
	if !strings.Contains(s, "{") && strings.ContainsAny(s[:1], ".$[") {
		s = "{" + s + "}"
	}
	parts, rest, err := parseParts(s, false)
	if err == nil && rest != "" {
		err = errors.New("{end} without {range}")
	}
	if err != nil {
		return nil, fmt.Errorf("jsonpath %q: %w", s, err)
	}
	return &Path{parts}, nil
}

// parseParts reads up to the end or, inside a range, past its {end}.
func parseParts(s string, inRange bool) (parts []part, rest string, err error) {
	for s != "" {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			parts, s = append(parts, part{text: s}), ""
			break
		}
		if open > 0 {
			parts = append(parts, part{text: s[:open]})
		}
		end := closing(s[open:])
		if end < 0 {
			return nil, "", errors.New("unclosed {")
		}
		expr := strings.TrimSpace(s[open+1 : open+end])
		after := s[open+end+1:]
		switch {
		case expr == "end":
			if !inRange {
				return parts, s[open:], nil
			}
			return parts, after, nil
		case strings.HasPrefix(expr, "range "):
			steps, err := parseSteps(strings.TrimSpace(expr[len("range "):]))
			if err != nil {
				return nil, "", err
			}
			body, left, err := parseParts(after, true)
			if err != nil {
				return nil, "", err
			}
			parts, s = append(parts, part{steps: steps, body: body, loop: true}), left
			continue
		case strings.HasPrefix(expr, `"`) || strings.HasPrefix(expr, `'`):
			text, err := unquote(expr)
			if err != nil {
				return nil, "", err
			}
			parts = append(parts, part{text: text})
		default:
			steps, err := parseSteps(expr)
			if err != nil {
				return nil, "", err
			}
			parts = append(parts, part{steps: steps})
		}
		s = after
	}
	if inRange {
		return nil, "", errors.New("{range} without {end}")
	}
	return parts, "", nil
}

// closing is the index of the brace that ends the one s begins with, quotes skipped.
func closing(s string) int {
	var quote byte
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '}':
			return i
		}
	}
	return -1
}

func unquote(s string) (string, error) {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		s = `"` + strings.ReplaceAll(s[1:len(s)-1], `"`, `\"`) + `"`
	}
	t, err := strconv.Unquote(s)
	if err != nil {
		return "", fmt.Errorf("bad text %s", s)
	}
	return t, nil
}

func parseSteps(s string) ([]step, error) {
	whole := s
	s = strings.TrimPrefix(strings.TrimPrefix(s, "$"), "@")
	steps := []step{}
	for s != "" {
		switch {
		case strings.HasPrefix(s, ".."):
			steps, s = append(steps, step{kind: stepDeep}), s[1:]
			if strings.HasPrefix(s, ".[") {
				s = s[1:]
			}
		case s == ".":
			s = ""
		case s[0] == '.':
			n := strings.IndexAny(s[1:], ".[")
			if n < 0 {
				n = len(s) - 1
			}
			key := s[1 : n+1]
			switch {
			case key == "" && n == 0 && len(s) > 1 && s[1] == '[': // ".[0]"
			case key == "":
				return nil, fmt.Errorf("empty key in %s", whole)
			case key == "*":
				steps = append(steps, step{kind: stepAll})
			default:
				steps = append(steps, step{kind: stepKey, key: key})
			}
			s = s[n+1:]
		case s[0] == '[':
			end := bracket(s)
			if end < 0 {
				return nil, fmt.Errorf("unclosed [ in %s", whole)
			}
			st, err := parseBracket(strings.TrimSpace(s[1:end]))
			if err != nil {
				return nil, err
			}
			steps, s = append(steps, st), s[end+1:]
		default:
			return nil, fmt.Errorf("want . or [ at %q", s)
		}
	}
	return steps, nil
}

func bracket(s string) int {
	depth, quote := 0, byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func parseBracket(s string) (step, error) {
	switch {
	case s == "*":
		return step{kind: stepAll}, nil
	case strings.HasPrefix(s, "'") || strings.HasPrefix(s, `"`):
		k, err := unquote(s)
		return step{kind: stepKey, key: k}, err
	case strings.HasPrefix(s, "?(") && strings.HasSuffix(s, ")"):
		return parseFilter(strings.TrimSpace(s[2 : len(s)-1]))
	case strings.Contains(s, ":"):
		from, to, _ := strings.Cut(s, ":")
		st := step{kind: stepSlice}
		var err error
		if from != "" {
			if st.index, err = strconv.Atoi(from); err != nil {
				return step{}, fmt.Errorf("bad slice [%s]", s)
			}
		}
		if to != "" {
			n, err := strconv.Atoi(to)
			if err != nil {
				return step{}, fmt.Errorf("bad slice [%s]", s)
			}
			st.to = &n
		}
		return st, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return step{}, fmt.Errorf("bad index [%s]", s)
	}
	return step{kind: stepIndex, index: n}, nil
}

func parseFilter(s string) (step, error) {
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		l, r, ok := strings.Cut(s, op)
		if !ok {
			continue
		}
		test, err := parseSteps(strings.TrimSpace(l))
		if err != nil {
			return step{}, err
		}
		want := strings.TrimSpace(r)
		if strings.HasPrefix(want, "'") || strings.HasPrefix(want, `"`) {
			if want, err = unquote(want); err != nil {
				return step{}, err
			}
		}
		return step{kind: stepFilter, test: test, op: op, want: want}, nil
	}
	test, err := parseSteps(s)
	return step{kind: stepFilter, test: test}, err
}
