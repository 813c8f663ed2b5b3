package catalog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// TestDockerfile: who builds with Docker gets the same files, the same first program and the same environment.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "deploy", "image", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	self, err := os.Executable() // any Go program will do
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hypha", "hypha-agent", "hypha-cni"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Agent(bin, "v1")
	if err != nil {
		t.Fatal(err)
	}
	copies := regexp.MustCompile(`(?m)^COPY --from=build \S+ /(\S+)$`).FindAllStringSubmatch(string(text), -1)
	if len(copies) != 7 {
		t.Errorf("%d files in the Dockerfile", len(copies))
	}
	for _, c := range copies {
		if !i.Tree.Has(c[1]) {
			t.Errorf("%s is in the Dockerfile only", c[1])
		}
	}
	for _, line := range []string{`ENTRYPOINT ["` + i.Entrypoint[0] + `"]`, "ENV " + i.Env[0]} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("the Dockerfile has no %s", line)
		}
	}
	for key, value := range i.Labels {
		if value != "v1" && !strings.Contains(string(text), key+"="+value) {
			t.Errorf("the Dockerfile has no label %s=%s", key, value)
		}
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
