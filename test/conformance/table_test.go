package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrite: a group's results go to its place, failures first, and nothing else of the document changes.
func TestWrite(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "doc.md")
	const before, between, after = "# A\n\n", "\n## B\n", "\nend\n"
	text := before + "<!-- services:begin -->\nold\n<!-- services:end -->" + between + "<!-- conformance:begin -->\n<!-- conformance:end -->" + after
	if err := os.WriteFile(doc, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	specs := []spec{{name: "a", outcome: passed, seconds: 1.6}, {name: "b", outcome: skipped, reason: "no <cloud>"}, {name: "c|d", outcome: failed, reason: "x\n\ty"}}
	if err := write(doc, groups[2], "v1.2.3", 4, specs); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	rows := "| c\\|d | **failed**: x y | 0 |\n| b | **skipped**: no &lt;cloud> | 0 |\n| a | passed | 2 |\n<!-- services:end -->" +
		between + "<!-- conformance:begin -->\n<!-- conformance:end -->" + after
	if s := string(got); !strings.HasPrefix(s, before+"<!-- services:begin -->\nk8s.io/kubernetes v1.2.3 ") || !strings.HasSuffix(s, rows) ||
		!strings.Contains(s, "3 specs: 1 passed, 1 failed, 1 skipped") || strings.Contains(s, "old") {
		t.Errorf("wrote\n%s", s)
	}
	if err := write(doc, groups[1], "v1", 1, specs); err == nil {
		t.Error("wrote to a document that has no place for it")
	}
}

// TestDocument: the document has a place for each group.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if _, rest, ok := strings.Cut(string(text), "<!-- "+g.name+":begin -->\n"); !ok || !strings.Contains(rest, "<!-- "+g.name+":end -->") {
			t.Errorf("no place for %s", g.name)
		}
	}
}

func TestBlame(t *testing.T) {
	ended := errors.New("exit status 1")
	for _, c := range []struct {
		specs []spec
		ended error
		want  int
	}{
		{[]spec{{outcome: passed}}, nil, 0}, {[]spec{{outcome: passed}}, ended, 1}, {[]spec{{outcome: failed}}, ended, 1},
	} {
		if got := count(blame(c.specs, c.ended)).failed; got != c.want {
			t.Errorf("%v, %v: %d failures", c.specs, c.ended, got)
		}
	}
}

func TestChoose(t *testing.T) {
	if got, err := choose([]string{"services", "conformance"}); err != nil || len(got) != 2 || got[0].name != "services" {
		t.Error(got, err)
	}
	if _, err := choose([]string{"nothing"}); err == nil {
		t.Error("chose a group that there is not")
	}
}
