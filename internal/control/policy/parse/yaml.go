package parse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// readYAML reads all documents of a YAML text; empty ones are left out.
func readYAML(text []byte, b *budget) (docs []*node, err error) {
	if len(text) > MaxYAML {
		return nil, fmt.Errorf("%w: more than %d bytes of YAML; split it, or write JSON", errTooLarge, MaxYAML)
	}
	if !utf8.Valid(text) {
		return nil, errors.New("the text is not valid UTF-8")
	}
	if err := yamlDepth(text); err != nil {
		return nil, err
	}
	// The library reports some faults of its input by panicking.
	defer func() {
		if p := recover(); p != nil {
			docs, err = nil, fmt.Errorf("not YAML: %v", p)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(text))
	for count := 0; ; count++ {
		if count > maxDocs {
			return nil, fmt.Errorf("%w: more than %d documents", errTooLarge, maxDocs)
		}
		var y yaml.Node
		if err := d.Decode(&y); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return nil, err
		}
		if y.Kind != yaml.DocumentNode || len(y.Content) != 1 {
			continue
		}
		n, err := fromYAML(y.Content[0], b, 0)
		if err != nil {
			return nil, err
		}
		if n.kind != kindNull {
			docs = append(docs, n)
		}
	}
}

// yamlDepth refuses early what would make the library recurse deeply. It only counts brackets and markers, so it may miss
// levels (the tree is checked again); no policy has a thousand of them open, or in one line.
func yamlDepth(text []byte) error {
	open := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			if open++; open > 1000 {
				return fmt.Errorf("%w: too many open brackets", errTooLarge)
			}
		case ']', '}':
			open = max(0, open-1)
		}
	}
	// "- - - - -" and "? ? ? ?" nest without brackets.
	for line := range bytes.Lines(text) {
		if bytes.Count(line, []byte("- ")) > 1000 || bytes.Count(line, []byte("? ")) > 1000 {
			return fmt.Errorf("%w: too many levels in one line", errTooLarge)
		}
	}
	return nil
}

func fromYAML(y *yaml.Node, b *budget, depth int) (*node, error) {
	if err := b.take(depth); err != nil {
		return nil, fmt.Errorf("line %d: %w", y.Line, err)
	}
	n := &node{line: y.Line}
	switch y.Kind {
	case yaml.AliasNode:
		if y.Alias == nil {
			return nil, fmt.Errorf("line %d: alias to nothing", y.Line)
		}
		return fromYAML(y.Alias, b, depth+1)
	case yaml.ScalarNode:
		return n, n.scalar(y)
	case yaml.SequenceNode:
		n.kind, n.list = kindList, []*node{}
		for _, c := range y.Content {
			item, err := fromYAML(c, b, depth+1)
			if err != nil {
				return nil, err
			}
			n.list = append(n.list, item)
		}
		return n, nil
	case yaml.MappingNode:
		n.kind = kindMap
		return n, n.mapping(y, b, depth)
	}
	return nil, fmt.Errorf("line %d: not a value", y.Line)
}

func (n *node) scalar(y *yaml.Node) error {
	n.text = y.Value
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.kind = kindNull
	case "!!bool":
		n.kind = kindBool
	case "!!int", "!!float":
		n.kind = kindNumber
	case "!!str", "!!timestamp":
		n.kind = kindString
	default:
		return fmt.Errorf("line %d: tag %q is not supported; write a plain value", y.Line, tag)
	}
	return nil
}

func (n *node) mapping(y *yaml.Node, b *budget, depth int) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := y.Content[i]
		if k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		if k.ShortTag() == "!!merge" {
			return fmt.Errorf("line %d: merge keys (<<) are not supported; write the fields out", k.Line)
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			return fmt.Errorf("line %d: a key must be a string; quote it", k.Line)
		}
		if seen[k.Value] {
			return fmt.Errorf("line %d: key %q is there twice", k.Line, k.Value)
		}
		seen[k.Value] = true
		v, err := fromYAML(y.Content[i+1], b, depth+1)
		if err != nil {
			return err
		}
		n.keys, n.vals = append(n.keys, k.Value), append(n.vals, v)
	}
	return nil
}
