package program

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLinker(t *testing.T) {
	for _, m := range slices.Concat(modules, suites) {
		flags := m.linker("v1.36.3")
		if m.version != "" && !strings.Contains(flags, "=v1.36.3") || strings.Contains(flags, "%") {
			t.Errorf("%s: %q", m.name, flags)
		}
		if m.path == "k8s.io/kubernetes" && (!strings.Contains(flags, "gitMajor=1 ") || !strings.HasSuffix(flags, "gitMinor=36")) {
			t.Errorf("%s: %q", m.name, flags)
		}
	}
}

// TestBuildOnce builds a small module and sees that it is built again exactly when something of it has changed.
func TestBuildOnce(t *testing.T) {
	source, dir := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.org/x\n\ngo 1.24\n")
	write("go.sum", "")
	write("main.go", "package main\n\nvar version string\n\nfunc main() { print(version) }\n")
	write("main_test.go", "package main\n")
	old := modules
	defer func() { modules = old }()
	modules = []module{{name: "x", folder: ".", path: "example.org/x", version: "-X main.version=%v", programs: map[string]string{"x": "."},
		tests: map[string]string{"x.test": "example.org/x"}}}
	var said strings.Builder
	b := Builder{Modules: source, Dir: dir, Out: &said}
	for i, c := range []struct {
		change func()
		builds int
	}{
		{func() {}, 1},
		{func() {}, 0},
		{func() { write("go.sum", "\n") }, 1},
		{func() { _ = os.Remove(filepath.Join(dir, "x")) }, 1},
		{func() { _ = os.Remove(filepath.Join(dir, "x.test")) }, 1},
		{func() {}, 0},
	} {
		c.change()
		said.Reset()
		if err := b.Build(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"x", "x.test"} {
			if n := strings.Count(said.String(), "building "+name+" "); n != c.builds {
				t.Errorf("round %d: built %s %d times, want %d", i, name, n, c.builds)
			}
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode()&0o111 == 0 {
				t.Fatalf("round %d: no program: %v", i, err)
			}
		}
	}
	write("main.go", "package main\n\nfunc main() { broken }\n")
	write("go.sum", "\n\n")
	if err := b.Build(t.Context()); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a build that fails: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.version")); err == nil {
		t.Error("programs of a failed build count as current")
	}
}
