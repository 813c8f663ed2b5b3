package out

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// WriteJSON writes v indented by two spaces, with a line end.
func WriteJSON(w io.Writer, v any) error {
	raw, err := encode(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	b.WriteByte('\n')
	_, err = w.Write(visible(b.Bytes(), jsonWide))
	return err
}

// WriteJSONLine writes v on one line.
func WriteJSONLine(w io.Writer, v any) error {
	raw, err := encode(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(visible(raw, jsonWide), '\n'))
	return err
}

// visible writes the characters that JSON and YAML would let through but a terminal would obey or hide as \u escapes;
// wide writes those that need more than 16 bits. They can only stand inside quotes, so the meaning stays the same.
func visible(b []byte, wide func([]byte, rune) []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, b[:n]...)
		case r > 0xffff:
			out = wide(out, r)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

func jsonWide(b []byte, r rune) []byte {
	hi, lo := utf16.EncodeRune(r)
	return fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
}

func yamlWide(b []byte, r rune) []byte { return fmt.Appendf(b, `\U%08x`, r) }
