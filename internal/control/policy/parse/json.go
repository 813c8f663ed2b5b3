package parse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// readJSON reads all values of a JSON text.
func readJSON(text []byte, b *budget) ([]*node, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the text is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	r := jsonReader{d: d, text: text, line: 1, b: b}
	var docs []*node
	for {
		n, err := r.value(0)
		if errors.Is(err, io.EOF) && len(docs) > 0 {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", r.here(), err)
		}
		docs = append(docs, n)
	}
}

type jsonReader struct {
	d    *json.Decoder
	text []byte
	b    *budget
	pos  int64
	line int
}

// here is the line the reader has come to. It only moves forward, so that all calls together cost one pass.
func (r *jsonReader) here() int {
	off := min(r.d.InputOffset(), int64(len(r.text)))
	if off > r.pos {
		r.line += bytes.Count(r.text[r.pos:off], []byte{'\n'})
		r.pos = off
	}
	return r.line
}

func (r *jsonReader) value(depth int) (*node, error) {
	tok, err := r.d.Token()
	if err != nil {
		return nil, err
	}
	return r.from(tok, depth)
}

func (r *jsonReader) from(tok json.Token, depth int) (*node, error) {
	if err := r.b.take(depth); err != nil {
		return nil, err
	}
	n := &node{line: r.here()}
	switch t := tok.(type) {
	case nil:
		n.kind = kindNull
	case bool:
		n.kind, n.text = kindBool, fmt.Sprint(t)
	case json.Number:
		n.kind, n.text = kindNumber, t.String()
	case string:
		n.kind, n.text = kindString, t
	case json.Delim:
		if t == '[' {
			n.kind = kindList
			return n, r.items(n, depth)
		}
		n.kind = kindMap
		return n, r.members(n, depth)
	}
	return n, nil
}

func (r *jsonReader) items(n *node, depth int) error {
	n.list = []*node{}
	for {
		tok, err := r.next()
		if err != nil {
			return err
		}
		if tok == json.Delim(']') {
			return nil
		}
		item, err := r.from(tok, depth+1)
		if err != nil {
			return err
		}
		n.list = append(n.list, item)
	}
}

func (r *jsonReader) members(n *node, depth int) error {
	seen := map[string]bool{}
	for {
		tok, err := r.next()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return nil // the decoder lets only "}" through here
		}
		if seen[key] {
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		tok, err = r.next()
		if err != nil {
			return err
		}
		val, err := r.from(tok, depth+1)
		if err != nil {
			return err
		}
		n.keys, n.vals = append(n.keys, key), append(n.vals, val)
	}
}

// next is a token inside a value, where the text must not end.
func (r *jsonReader) next() (json.Token, error) {
	tok, err := r.d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return tok, err
}
