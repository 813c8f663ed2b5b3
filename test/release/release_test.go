// Package release checks what `make build` and `make sbom` hand out: anybody who builds the same commit with the same Go gets the
// same bytes, and the bill of materials names every module that went into them.
package release

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/testutil/score"
)

var binaries = []string{"hypha", "hypha-agent", "hypha-cni"}

// all of them is what make builds by itself.
const all = "./cmd/..."

// TestCase47Reproducible: two clones in different places, built by people with different settings, give the same binaries. In full
// size the second has an empty build cache, so that every package is compiled twice; else one cache serves both, and the smallest
// binary must do. Without -trimpath they differ, so the comparison can tell.
func TestCase47Reproducible(t *testing.T) {
	sc := score.Start(t, "47", "binaries of one commit built in two places, under different home, locale, time zone and umask")
	root := repository(t)
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "somewhere", "quite", "else")
	cmds, built := "./cmd/hypha-cni", binaries[2:]
	if score.Full() {
		cmds, built = all, binaries
	}
	first := clone(t, root, one, cmds, nil)
	env := []string{"HOME=" + t.TempDir(), "USER=somebody", "LANG=C", "TZ=Pacific/Auckland"}
	cache := "one build cache"
	if score.Full() {
		env = append(env, "GOCACHE="+t.TempDir())
		cache = "an empty build cache for the second"
	}
	second := clone(t, root, two, cmds, env)
	for _, b := range built {
		if first[b] != second[b] {
			t.Errorf("%s is not the same: %s", b, differ(t, filepath.Join(one, "bin", b), filepath.Join(two, "bin", b)))
		}
	}
	sc.Count(len(built), "binaries")
	sc.Say("byte-identical, with %s", cache)

	var untrimmed [2][sha256.Size]byte
	for i, at := range []string{one, two} {
		out := filepath.Join(t.TempDir(), "cni")
		run(t, at, nil, "go", "build", "-o", out, "./cmd/hypha-cni")
		untrimmed[i] = digest(t, out)
	}
	if untrimmed[0] == untrimmed[1] {
		t.Error("without -trimpath two places give the same binary: this test proves nothing")
	}
}

// TestCase47BillOfMaterials: the bill of each binary names exactly the modules that the binary records, and the Go it was built with.
func TestCase47BillOfMaterials(t *testing.T) {
	sc := score.Start(t, "47", "bill of materials of each binary")
	root := repository(t)
	tool := filepath.Join(root, "bin", "cyclonedx-gomod")
	if _, err := os.Stat(tool); err != nil {
		t.Skip("no bin/cyclonedx-gomod: `make tools-sbom` installs it")
	}
	dir := filepath.Join(t.TempDir(), "src")
	clone(t, root, dir, all, nil)
	if err := os.Symlink(tool, filepath.Join(dir, "bin", "cyclonedx-gomod")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, nil, "make", "sbom")
	modules := 0
	for _, b := range binaries {
		info, err := buildinfo.ReadFile(filepath.Join(dir, "bin", b))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{"std@" + info.GoVersion: true}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			want[m.Path+"@"+m.Version] = true
		}
		got, main := bill(t, filepath.Join(dir, "bin", b+".cdx.json"))
		if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
			t.Errorf("modules of %s: -in the binary +in its bill\n%s", b, d)
		}
		if main != info.Main.Path {
			t.Errorf("the bill of %s is of %q, not %q", b, main, info.Main.Path)
		}
		modules += len(want)
	}
	if modules < 50 {
		t.Errorf("only %d modules: this test proves nothing", modules)
	}
	sc.Count(modules, "modules in 3 binaries")
	sc.Say("each is in the bill of its binary, and nothing else")
}

// bill reads a bill of materials: modules as path@version, and what it is about.
func bill(t *testing.T, file string) (modules map[string]bool, main string) {
	t.Helper()
	type component struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	var doc struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Component component `json:"component"`
		} `json:"metadata"`
		Components []component `json:"components"`
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil || doc.Format != "CycloneDX" {
		t.Fatalf("%s: %v, format %q", file, err, doc.Format)
	}
	modules = map[string]bool{}
	for _, c := range doc.Components {
		modules[c.Name+"@"+c.Version] = true
	}
	return modules, doc.Metadata.Component.Name
}

// repository is the root of the repository that this is part of.
func repository(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"git", "make", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s to build", tool)
		}
	}
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skip("not in a git repository: a release is built from a commit")
	}
	return strings.TrimSpace(string(out))
}

// clone builds the commit that is checked out, in a clone at a new place, and returns what came out.
func clone(t *testing.T, root, dir, cmds string, env []string) map[string][sha256.Size]byte {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, root, nil, "git", "clone", "-q", root, dir)
	umask := "umask 022"
	if env != nil {
		umask = "umask 077"
	}
	run(t, dir, env, "sh", "-c", umask+" && make build CMDS="+cmds)
	out := map[string][sha256.Size]byte{}
	for _, b := range binaries {
		if file := filepath.Join(dir, "bin", b); cmds == all || strings.HasSuffix(cmds, "/"+b) {
			out[b] = digest(t, file)
		}
	}
	return out
}

// run runs a command where it shares modules and, unless env says otherwise, what was compiled before.
func run(t *testing.T, dir string, env []string, args ...string) {
	t.Helper()
	shared, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE", "GOPROXY", "GOSUMDB").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Split(string(shared), "\n")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	for _, e := range os.Environ() { // `make test` must not speak to the make that we start
		if !strings.HasPrefix(e, "MAKE") && !strings.HasPrefix(e, "MFLAGS=") && !strings.HasPrefix(e, "VERSION=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "GOMODCACHE="+values[0], "GOCACHE="+values[1], "GOPROXY="+values[2], "GOSUMDB="+values[3], "GOFLAGS=")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s in %s: %v\n%s", strings.Join(args, " "), dir, err, out)
	}
}

func digest(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// differ says where two files begin to differ, and what they record of their build.
func differ(t *testing.T, a, b string) string {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for at < min(len(x), len(y)) && x[at] == y[at] {
		at++
	}
	around := func(b []byte) []byte { return bytes.ToValidUTF8(b[max(0, at-40):min(len(b), at+80)], []byte("?")) }
	why := fmt.Sprintf("%d and %d bytes, from byte %d on: %q and %q", len(x), len(y), at, around(x), around(y))
	ix, errX := buildinfo.ReadFile(a)
	iy, errY := buildinfo.ReadFile(b)
	if errX == nil && errY == nil {
		why += "\n" + cmp.Diff(ix.String(), iy.String())
	}
	return why
}
