// Package escape makes text from workloads (names, labels, DNS names, HTTP paths, interface names) safe to show on a
// terminal: no control sequence, no invisible or direction-changing character survives, and what is shown says
// exactly which bytes there were. It owns nothing and allocates only when there is something to escape.
package escape

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// Text returns s with every character that is not plainly visible written as an escape sequence of Go's string
// literals: \n, \t, \x1b, \u202e. A backslash is doubled, so the result can be told from the original. Spaces,
// quotes and printable Unicode stay as they are. Bytes that are not UTF-8 become \xNN.
func Text(s string) string {
	if clean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			writeByte(&b, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		case visible(r):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < utf8.RuneSelf:
			writeByte(&b, byte(r))
		case r <= 0xffff:
			b.WriteString(`\u`)
			writeHex(&b, uint32(r), 4)
		default:
			b.WriteString(`\U`)
			writeHex(&b, uint32(r), 8)
		}
		i += n
	}
	return b.String()
}

// Texts escapes each string of a list into a new list.
func Texts(ss []string) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = Text(s)
	}
	return out
}

func clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			return cleanUnicode(s)
		}
	}
	return true
}

func cleanUnicode(s string) bool {
	for i, r := range s {
		if r == '\\' || !visible(r) {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

// visible leaves out all control, format (bidi, zero width), private and unassigned characters, and all spaces
// but the ASCII one.
func visible(r rune) bool { return unicode.IsPrint(r) }

func writeByte(b *strings.Builder, c byte) {
	b.WriteString(`\x`)
	writeHex(b, uint32(c), 2)
}

func writeHex(b *strings.Builder, v uint32, digits int) {
	for shift := (digits - 1) * 4; shift >= 0; shift -= 4 {
		b.WriteByte(hex[v>>shift&0xf])
	}
}
