package escape

import (
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"default/app1 (reserved:world)", "default/app1 (reserved:world)"},
		{"日本 é", "日本 é"},
		{"a\x1b[31mred\x1b]0;title\x07", `a\x1b[31mred\x1b]0;title\x07`},
		{"two\nlines\r\t", `two\nlines\r\t`},
		{"\u009b31m", `\u009b31m`},                 // C1: the one-character CSI
		{"safe\u202egnp.exe", `safe\u202egnp.exe`}, // right-to-left override
		{"zero\u200bwidth\ufeff", `zero\u200bwidth\ufeff`},
		{"\xff\x9b", `\xff\x9b`},
		{"tag\U000e0041", `tag\U000e0041`},
		{`C:\x1b`, `C:\\x1b`},
		{"\u2028\u00a0", `\u2028\u00a0`},
		{"\ufffd", "\ufffd"}, // a real replacement character is a visible one
		{"del\x7f\x00", `del\x7f\x00`},
		{`say "hi" 'you'`, `say "hi" 'you'`},
	} {
		if got := Text(c.in); got != c.want {
			t.Errorf("Text(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if d := cmp.Diff([]string{"a", `\x1b`}, Texts([]string{"a", "\x1b"})); d != "" {
		t.Error(d)
	}
}

func TestTextOfCleanAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _ = Text("default/frontend-7d4f9c-x2x9z") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[0m", "\u202e", "\xff", `\`, "\U000e0041"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("Text(%q) = %q holds %q", s, got, r)
			}
		}
		back, err := strconv.Unquote(`"` + strings.ReplaceAll(got, `"`, `\"`) + `"`)
		if err != nil || back != s {
			t.Fatalf("Text(%q) = %q does not read back: %q, %v", s, got, back, err)
		}
	})
}
