package out

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

type point struct {
	Name string            `json:"name"`
	N    int               `json:"n"`
	Tags []string          `json:"tags"`
	Sub  map[string]string `json:"sub"`
}

func sample() any {
	return []point{
		{Name: "a", N: 1, Tags: []string{"x", "y"}, Sub: map[string]string{"k.with.dots": "v"}},
		{Name: "b", N: 20, Tags: []string{}},
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"{[*].name}", "a b\n"},
		{"{[0].n}", "1\n"},
		{"{[-1].name}", "b\n"},
		{"[1].name", "b\n"},
		{"{$[0].tags}", "[\"x\",\"y\"]\n"},
		{"{[0].tags[*]}", "x y\n"},
		{"{[0].tags[0:1]}", "x\n"},
		{"{[:1].name}", "a\n"},
		{"{[5:].name}", "\n"},
		{"{[0].sub['k.with.dots']}", "v\n"},
		{`{[0].sub["k.with.dots"]}`, "v\n"},
		{"{..name}", "a b\n"},
		{"{[?(@.n>3)].name}", "b\n"},
		{"{[?(@.n<=1)].name}", "a\n"},
		{"{[?(@.name=='b')].n}", "20\n"},
		{`{[?(@.name!="b")].n}`, "1\n"},
		{"{[?(@.sub)].name}", "a b\n"},
		{"{[?(@.gone)].name}", "\n"},
		{"names: {[*].name}.", "names: a b.\n"},
		{`{range [*]}{.name}={.n}{"\n"}{end}`, "a=1\nb=20\n"},
		{`{range [*]}{range .tags[*]}<{@}>{end}{'|'}{end}`, "<x><y>||\n"},
		{"{[*].tags[7]}", "\n"},
		{"{@}", `[{"name":"a","n":1,"tags":["x","y"],"sub":{"k.with.dots":"v"}},{"name":"b","n":20,"tags":[],"sub":null}]` + "\n"},
	} {
		p, err := ParsePath(c.path)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		var b strings.Builder
		if err := p.Write(&b, sample()); err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
		if d := cmp.Diff(c.want, b.String()); d != "" {
			t.Errorf("%s: %s", c.path, d)
		}
	}
}

func TestPathErrors(t *testing.T) {
	for path, want := range map[string]string{
		"":                   "empty jsonpath",
		"{.a":                "unclosed {",
		"{[0}":               "unclosed [",
		"{[x]}":              "bad index",
		"{[1:x]}":            "bad slice",
		"{end}":              "{end} without {range}",
		"{range .a}":         "{range} without {end}",
		"{a}":                "want . or [",
		`{"a}`:               "unclosed {",
		"{[?(@.a=='x)]}":     "unclosed",
		"{.a.}":              "",
		"{range .a}{end}x{[": "unclosed",
	} {
		_, err := ParsePath(path)
		if want == "" {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	for path, want := range map[string]string{
		"{.name}":       `there is no "name" here (has: no fields)`,
		"{[0].nam}":     `there is no "nam" here (has: name, n, tags, sub)`,
		"{[9]}":         "index 9 is outside a list of 2",
		"{[0].tags[4]}": "index 4 is outside a list of 2",
	} {
		p, err := ParsePath(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write(&strings.Builder{}, sample()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"{[*].name}", "{range [*]}{.a}{end}", "{[?(@.n>3)]}", "{..}", ".a", "{['x']}", "{[1:2]}", `{"\n"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePath(s); err == nil {
			_ = p.Write(&strings.Builder{}, sample()) // must not panic
		}
	})
}

func TestFormat(t *testing.T) {
	for _, bad := range []string{"xml", "jsonpath", "jsonpath={", "JSON", "json=x"} {
		if _, err := ParseFormat(bad); err == nil {
			t.Errorf("%q is a format", bad)
		}
	}
	for _, s := range []string{"", "table"} {
		if f, err := ParseFormat(s); err != nil || !f.Table() {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
	var b strings.Builder
	f, err := ParseFormat("json")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(&b, Proto{&agentv1.Identity{Id: 5}}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("{\n  \"id\": 5,\n  \"labels\": [],\n  \"class\": 0,\n  \"references\": 0\n}\n", b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	if err := f.Write(&b, List([]*agentv1.Identity(nil))); err != nil || b.String() != "[]\n" {
		t.Errorf("empty list: %q, %v", b.String(), err)
	}
}

// value draws plain data as JSON knows it.
func value(depth int) *rapid.Generator[any] {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "true", "no", "1e3", "0x1f", "-", "a: b", "- x", "#c", "null", "~", " x", "x ", "'q'",
		"\x1b[31m", "\u202e", "\u0085", "\u2028", "k8s:id=app1", "2001-01-01", "a:", "{}", "[", "*a", "&a", "!t", "%", "@", "`", "|", ">", "<<", "=", "\t", "::1", "12:30:45", "a\nb", "\ufeff"}))
	leafs := []*rapid.Generator[any]{text.AsAny(), rapid.Bool().AsAny(), rapid.IntRange(-1000, 1000).AsAny(), rapid.Just[any](nil)}
	if depth == 0 {
		return rapid.OneOf(leafs...)
	}
	return rapid.OneOf(append(leafs, rapid.SliceOfN(value(depth-1), 0, 3).AsAny(), rapid.MapOfN(text, value(depth-1), 0, 3).AsAny())...)
}

// TestWriters: JSON and YAML read back as what was written, and neither holds anything a terminal would obey.
func TestWriters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := value(3).Draw(t, "v")
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var j, y, l strings.Builder
		for w, err := range map[string]error{"json": WriteJSON(&j, v), "yaml": WriteYAML(&y, v), "line": WriteJSONLine(&l, v)} {
			if err != nil {
				t.Fatal(w, err)
			}
		}
		back, err := yaml.YAMLToJSON([]byte(y.String()))
		if err != nil {
			t.Fatalf("read YAML %q: %v", y.String(), err)
		}
		for name, got := range map[string]string{"json": j.String(), "yaml": string(back), "line": l.String()} {
			if d := cmp.Diff(plainData(t, string(want)), plainData(t, got)); d != "" {
				t.Fatalf("%s: %s\nfrom %q", name, d, y.String())
			}
		}
		for name, s := range map[string]string{"json": j.String(), "yaml": y.String(), "line": l.String()} {
			if strings.ContainsAny(s, "\x1b\u202e\u0085\u2028\ufeff\r\a\b") {
				t.Fatalf("%s holds control characters: %q", name, s)
			}
		}
	})
}

func plainData(t *rapid.T, s string) any {
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("read %q: %v", s, err)
	}
	return v
}

func TestTable(t *testing.T) {
	tab := NewTable(false, "A", "LONG\nHEAD", "C")
	tab.Row("1", []string{"x", "yy"}, "")
	tab.Row("é2", "", Styled{"z\x1b", Red})
	var b strings.Builder
	if _, err := tab.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := "A    LONG   C\n     HEAD\n1    x\n     yy\né2          z\\x1b\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	tab.color = true
	if _, err := tab.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\x1b[31mz\\x1b\x1b[0m") {
		t.Errorf("%q", b.String())
	}
}

func TestWantColor(t *testing.T) {
	for _, c := range []struct {
		tty  bool
		env  string
		want Color
	}{{true, "", true}, {false, "", false}, {true, "NO_COLOR=1", false}, {true, "TERM=dumb", false}, {true, "TERM=xterm", true}} {
		name, v, _ := strings.Cut(c.env, "=")
		got := WantColor(c.tty, func(n string) string {
			if n == name {
				return v
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
