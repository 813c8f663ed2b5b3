package catalog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/test/kube/image"
)

const top = "../../.."

// build makes the project's binaries in a directory of this name.
func build(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("make", "--no-print-directory", "-C", top, "build", "BIN="+dir, "VERSION=v1", "CMDS=./cmd/...")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return dir
}

func archive(t *testing.T, i *image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAgentReproducible: the image is the same bytes, whoever builds it where and when; another version is not.
func TestAgentReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all binaries twice")
	}
	var all [][]byte
	for _, dir := range []string{filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "another", "place")} {
		i, err := Agent(build(t, dir), "v1")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, archive(t, i))
		if i, err = Agent(dir, "v2"); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(all[0], archive(t, i)) {
			t.Error("another version gave the same bytes")
		}
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("two builds gave different images")
	}
	if len(all[0]) < 10<<20 {
		t.Errorf("an image of %d bytes holds no binaries", len(all[0]))
	}
}

// TestDockerfiles: who builds with Docker gets the same files, the same first program and the same environment.
func TestDockerfiles(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable() // any Go program will do
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hypha", "hypha-agent", "hypha-cni", "hypha-operator"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		file  string
		make  func(bin, version string) (*image.Image, error)
		files int
	}{{"agent.Dockerfile", Agent, 7}, {"operator.Dockerfile", Operator, 1}} {
		i, err := c.make(bin, "v1")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(top, "deploy", "image", c.file))
		if err != nil {
			t.Fatal(err)
		}
		copies := regexp.MustCompile(`(?m)^COPY --from=build \S+ /(\S+)$`).FindAllStringSubmatch(string(text), -1)
		if len(copies) != c.files {
			t.Errorf("%d files in %s", len(copies), c.file)
		}
		for _, f := range copies {
			if !i.Tree.Has(f[1]) {
				t.Errorf("%s is in %s only", f[1], c.file)
			}
		}
		for _, line := range []string{`ENTRYPOINT ["` + i.Entrypoint[0] + `"]`, "ENV " + i.Env[0]} {
			if !strings.Contains(string(text), line+"\n") {
				t.Errorf("%s has no %s", c.file, line)
			}
		}
		for key, value := range i.Labels {
			if value != "v1" && !strings.Contains(string(text), key+"="+value) {
				t.Errorf("%s has no label %s=%s", c.file, key, value)
			}
		}
	}
}

// TestTags: the image has the name that the chart asks for, and that of its version.
func TestTags(t *testing.T) {
	chart, err := os.ReadFile(filepath.Join(top, "deploy", "chart", "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(chart), "\nappVersion: "+unreleased+"\n") {
		t.Errorf("the chart's appVersion is not %s", unreleased)
	}
	i, err := own("x", "v1", t.TempDir(), nil)
	if err != nil || !slices.Equal(i.Names, []string{Registry + "x:v1", Registry + "x:devel"}) {
		t.Errorf("names %q, %v", i.Names, err)
	}
}

func TestAgentWantsBinaries(t *testing.T) {
	bin := t.TempDir()
	if _, err := Agent(bin, "v1"); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("without binaries: %v", err)
	}
	for _, name := range []string{"hypha", "hypha-agent", "hypha-cni"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Agent(bin, "v1"); err == nil {
		t.Error("took scripts for Go programs")
	}
}
