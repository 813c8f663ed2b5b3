package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	rows, doc := filepath.Join(dir, "rows"), filepath.Join(dir, "doc.md")
	lines := `{"case":"CVE-2","test":"TestCVE2","what":"a|b","outcome":"pass","full":true}
{"case":"15","test":"TestCase15","n":3,"unit":"maps","outcome":"fail","full":true}
{"case":"3","test":"TestCase03","outcome":"pass"}
{"case":"15","test":"TestCase15","n":4,"unit":"maps","outcome":"pass","seed":7,"full":true}
`
	for path, text := range map[string]string{rows: lines, doc: "head\n" + begin + "old\n" + end + "\ntail\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(rows, doc); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	if !strings.HasPrefix(text, "head\n") || !strings.HasSuffix(text, end+"\ntail\n") || strings.Contains(text, "old") {
		t.Errorf("not between the markers:\n%s", text)
	}
	i, j, k := strings.Index(text, "| 3 |"), strings.Index(text, "| 15 |  | 4 maps |"), strings.Index(text, `| CVE-2 | a\|b |`)
	if i < 0 || j < i || k < j || strings.Contains(text, "**fail**") {
		t.Errorf("rows missing or out of order:\n%s", text)
	}
}

func TestNothingRun(t *testing.T) {
	dir := t.TempDir()
	rows, doc := filepath.Join(dir, "rows"), filepath.Join(dir, "doc.md")
	for path, text := range map[string]string{rows: "", doc: begin + end} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(rows, doc); err == nil || !strings.Contains(err.Error(), "no case was run") {
		t.Errorf("%v", err)
	}
}
