package parse

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindMap
)

func (k kind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "a list", "a map"}[k]
}

// node is a value of a document, of JSON or YAML alike, not yet typed.
type node struct {
	kind kind
	text string // of a scalar: as written (strings: unquoted)
	list []*node
	keys []string // of a map, in order, each once
	vals []*node
	line int // where it starts, 0 = unknown
}

// get is the value of a key of a map, nil when there is none.
func (n *node) get(key string) *node {
	if n == nil || n.kind != kindMap {
		return nil
	}
	for i, k := range n.keys {
		if k == key {
			return n.vals[i]
		}
	}
	return nil
}

// lineOf is the line of what a path leads to, or of the last value on the way that is there; 0 when unknown.
func (n *node) lineOf(path string) int {
	line := 0
	for n != nil {
		if n.line > 0 {
			line = n.line
		}
		var step string
		if step, path = nextStep(path); step == "" {
			break
		}
		if i, err := strconv.Atoi(step); err == nil && n.kind == kindList {
			if i >= len(n.list) {
				break
			}
			n = n.list[i]
			continue
		}
		n = n.get(step)
	}
	return line
}

// nextStep cuts `a`, `[0]` or `["a.b"]` off a path.
func nextStep(path string) (step, rest string) {
	path = strings.TrimPrefix(path, ".")
	if in, ok := strings.CutPrefix(path, "["); ok {
		if q, err := strconv.QuotedPrefix(in); err == nil {
			if step, err = strconv.Unquote(q); err == nil {
				return step, strings.TrimPrefix(in[len(q):], "]")
			}
		}
		step, rest, _ = strings.Cut(in, "]")
		return step, rest
	}
	if i := strings.IndexAny(path, ".["); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// budget bounds the work on one file.
type budget struct{ nodes int }

var errTooLarge = errors.New("the file is too large or nested too deep")

func (b *budget) take(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d levels", errTooLarge, maxDepth)
	}
	if b.nodes++; b.nodes > maxNodes {
		return fmt.Errorf("%w: more than %d values", errTooLarge, maxNodes)
	}
	return nil
}
