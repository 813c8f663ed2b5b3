package parse

import (
	"errors"
	"fmt"
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
