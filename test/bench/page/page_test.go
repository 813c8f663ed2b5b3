package page

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	doc := "# Title\n<!-- a:begin -->\nold\n<!-- a:end -->\n<!-- b:begin -->\nrest\n<!-- b:end -->\n"
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, "a", "\nnew\n\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := strings.Replace(doc, "old", "new", 1); err != nil || string(got) != want {
		t.Errorf("%q %v", got, err)
	}
	if err := Replace(path, "c", "x"); err == nil {
		t.Error("a document without markers was taken")
	}
}

func TestMachine(t *testing.T) {
	if got := Machine([]string{"/bin/sh", "-c", "echo tool 1.2; echo more"}); !strings.Contains(got, "; tool 1.2; ") && !strings.Contains(got, " tool 1.2; ") || strings.Contains(got, "more") {
		t.Error(got)
	}
}

func TestTargets(t *testing.T) {
	var x Targets
	x.Add("a", "1", "2", true)
	x.Add("b", "3", "2", false)
	if got := x.String(); !strings.Contains(got, "| a | 1 | 2 | reached |\n| b | 3 | 2 | **missed** |\n") || len(x.Missed) != 1 || x.Missed[0] != "b" {
		t.Errorf("%q, missed %v", got, x.Missed)
	}
}

func TestGiven(t *testing.T) {
	f := flag.NewFlagSet("x", flag.ContinueOnError)
	f.Int("n", 1, "")
	f.Int("m", 1, "")
	f.Bool("quick", false, "")
	f.String("out", "", "")
	if err := f.Parse([]string{"-quick", "-out", "x", "-n", "2"}); err != nil {
		t.Fatal(err)
	}
	if got := Given(f, "out"); got != " -n 2 -quick" {
		t.Errorf("%q", got)
	}
}
