package parse

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
)

// decoder fills Go values from nodes and collects what is wrong, each with its place.
type decoder struct {
	file string
	doc  int // from 1
	root *node
	errs []error
	seen map[string]bool // paths that have an error
	tags map[reflect.Type][]string
}

// Error is one fault of a file.
type Error struct {
	File     string
	Document int    // from 1
	Line     int    // 0 = unknown
	Path     string // spec.ingress[0].toPorts[0].ports[0].endPort
	Reason   string
}

// Error is "file: document N, line L: path: reason".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: document %d", e.File, e.Document)
	if e.Line > 0 {
		fmt.Fprintf(&b, ", line %d", e.Line)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	b.WriteString(": " + e.Reason)
	return b.String()
}

// fail notes an error, one for each place.
func (d *decoder) fail(path, format string, args ...any) {
	path = strings.TrimPrefix(path, ".")
	at := fmt.Sprintf("%d %s", d.doc, path)
	if d.full() || d.seen[at] {
		return
	}
	if d.seen == nil {
		d.seen = map[string]bool{}
	}
	d.seen[at] = true
	line := d.root.lineOf(path)
	d.errs = append(d.errs, &Error{File: d.file, Document: d.doc, Line: line, Path: brief(path), Reason: brief(fmt.Sprintf(format, args...))})
}

// brief shortens what quotes the file: a number may have a million digits.
func brief(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// full says that there is no point in going on.
func (d *decoder) full() bool { return len(d.errs) >= maxErrs }

// setter is a type with a written form of its own.
type setter interface{ Set(string) error }

// decode fills v from n. It reports every fault it finds and goes on.
func (d *decoder) decode(n *node, path string, v reflect.Value) {
	if d.full() {
		return
	}
	if n.kind == kindNull {
		d.fail(path, "null can be read as \"nobody\" and as \"anybody\"; write [] or a value, or leave the field out")
		return
	}
	if s, ok := reflect.TypeAssert[setter](v.Addr()); ok && (n.kind == kindString || n.kind == kindNumber && v.Type() == icmpType) {
		if err := s.Set(n.text); err != nil {
			d.fail(path, "%v", err)
		}
		return
	}
	if v.Type() == icmpType {
		d.fail(path, "want a number or a name, got %s", n.kind)
		return
	}
	want := kindMap
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.decode(n, path, p.Elem())
		v.Set(p)
		return
	case reflect.String:
		want = kindString
	case reflect.Bool:
		want = kindBool
	case reflect.Int32, reflect.Uint64:
		want = kindNumber
	case reflect.Slice:
		want = kindList
	}
	if n.kind != want {
		hint := ""
		if want == kindString && (n.kind == kindNumber || n.kind == kindBool) {
			hint = fmt.Sprintf("; write %q", n.text)
		}
		d.fail(path, "want %s, got %s%s", want, n.kind, hint)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.text)
	case reflect.Bool:
		v.SetBool(n.text == "true" || n.text == "True" || n.text == "TRUE")
	case reflect.Int32:
		i, err := strconv.ParseInt(n.text, 10, 32)
		if err != nil {
			d.fail(path, "%q is not a whole number of 32 bits", n.text)
		}
		v.SetInt(i)
	case reflect.Uint64:
		i, err := strconv.ParseUint(n.text, 10, 64)
		if err != nil {
			d.fail(path, "%q is not a whole number of 64 bits", n.text)
		}
		v.SetUint(i)
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), len(n.list), len(n.list))
		for i, item := range n.list {
			d.decode(item, path+"["+strconv.Itoa(i)+"]", s.Index(i))
		}
		v.Set(s)
	case reflect.Map:
		d.decodeMap(n, path, v)
	case reflect.Struct:
		d.decodeStruct(n, path, v)
	}
}

var icmpType = reflect.TypeFor[v2.ICMPType]()

func (d *decoder) decodeMap(n *node, path string, v reflect.Value) {
	m := make(map[string]string, len(n.keys))
	for i, k := range n.keys {
		var s string
		d.decode(n.vals[i], path+"["+strconv.Quote(k)+"]", reflect.ValueOf(&s).Elem())
		m[k] = s
	}
	v.Set(reflect.ValueOf(m))
}

func (d *decoder) decodeStruct(n *node, path string, v reflect.Value) {
	names := d.fields(v.Type())
	for i, k := range n.keys {
		at := path + "." + k
		if f := slices.Index(names, k); f >= 0 {
			d.decode(n.vals[i], at, v.Field(f))
			continue
		}
		if why, ok := unsupported[v.Type().Name()][k]; ok {
			d.fail(at, "known, but not supported yet (%s); supported here: %s", why, strings.Join(names, ", "))
			continue
		}
		if ignored[v.Type().Name()][k] {
			continue
		}
		d.fail(at, "unknown field; known here: %s", strings.Join(names, ", "))
	}
}

// fields are the JSON names of a struct's fields, by index.
func (d *decoder) fields(t reflect.Type) []string {
	if names, ok := d.tags[t]; ok {
		return names
	}
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	if d.tags == nil {
		d.tags = map[reflect.Type][]string{}
	}
	d.tags[t] = names
	return names
}
