package out

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strings"
)

// WriteYAML writes v as YAML in the order of its fields. Strings that YAML could read as something else are quoted as
// JSON quotes them, which YAML understands.
func WriteYAML(w io.Writer, v any) error {
	t, err := tree(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	switch t := t.(type) {
	case Object, []any:
		if !empty(t) {
			block(&b, t, 0)
			break
		}
		b.WriteString(scalar(t) + "\n")
	default:
		b.WriteString(scalar(t) + "\n")
	}
	_, err = w.Write(visible(b.Bytes(), yamlWide))
	return err
}

// block writes a filled object or list; the cursor stands where its first line begins.
func block(b *bytes.Buffer, v any, depth int) {
	pad := strings.Repeat("  ", depth)
	switch v := v.(type) {
	case Object:
		for i, f := range v {
			if i > 0 {
				b.WriteString(pad)
			}
			b.WriteString(quoted(f.Key) + ":")
			if empty(f.Value) {
				b.WriteString(" " + scalar(f.Value) + "\n")
				continue
			}
			b.WriteByte('\n')
			in := depth
			if _, isObject := f.Value.(Object); isObject {
				in++
			}
			b.WriteString(strings.Repeat("  ", in))
			block(b, f.Value, in)
		}
	case []any:
		for i, e := range v {
			if i > 0 {
				b.WriteString(pad)
			}
			b.WriteString("- ")
			if empty(e) {
				b.WriteString(scalar(e) + "\n")
				continue
			}
			block(b, e, depth+1)
		}
	}
}

// empty says whether v is written on the line of its key.
func empty(v any) bool {
	switch v := v.(type) {
	case Object:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return true
}

func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return quoted(v)
	case Object:
		return "{}"
	case []any:
		return "[]"
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	}
	return "null"
}

// Plain text is what cannot be taken for a number, date, boolean, null or syntax.
var (
	plain    = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./=@()%+-]*(:[A-Za-z0-9_./=@()%+-]+)*( [A-Za-z0-9_./=@()%+-]+)*$`)
	reserved = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|null|y|n)$`)
)

func quoted(s string) string {
	if plain.MatchString(s) && !reserved.MatchString(s) {
		return s
	}
	raw, err := encode(s)
	if err != nil { // a string always encodes
		return `""`
	}
	return string(raw)
}
