package cgroup

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestMount(t *testing.T) {
	for line, want := range map[string]string{
		"29 28 0:25 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw": "/sys/fs/cgroup/unified",
		`29 28 0:25 / /mnt/a\040b rw - cgroup2 none rw`:                                 "/mnt/a b",
		"29 28 0:25 /machine /sys/fs/cgroup rw - cgroup2 cgroup2 rw":                    "", // a part of it
		"30 28 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu":                     "",
		"29 28":        "",
		" - ":          "",
		"x - cgroup2 ": "",
	} {
		if got, ok := mount(line); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", line, got, ok, want)
		}
	}
}

func TestUnder(t *testing.T) {
	if _, err := Under(t.TempDir()); err == nil {
		t.Error("found control groups in a directory without")
	}
	root, err := Root()
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{root}
	if filepath.Base(root) == "unified" {
		dirs = append(dirs, filepath.Dir(root))
	}
	for _, d := range dirs {
		if got, err := Under(d); got != root || err != nil {
			t.Errorf("under %s: %q, %v; want %q", d, got, err, root)
		}
	}
}
