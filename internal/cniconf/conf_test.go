package cniconf

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
)

// dir is a directory of configurations with these files in it; the content of each is its name.
func dir(t *testing.T, names ...string) string {
	t.Helper()
	d := t.TempDir()
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(d, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func list(t *testing.T, d string) []string {
	t.Helper()
	entries, err := os.ReadDir(d)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func config(d string, exclusive bool) Config {
	return Config{Path: filepath.Join(d, "05-cilium.conflist"), Exclusive: exclusive, StateDir: "/var/lib/hypha", NodeName: "n1"}
}

func TestExclusive(t *testing.T) {
	d := dir(t, "10-flannel.conflist", "20.conf", "README", "99.json")
	c := config(d, true)
	for range 2 { // again changes nothing
		if err := c.Write(); err != nil {
			t.Fatal(err)
		}
		want := []string{"05-cilium.conflist", "10-flannel.conflist.cilium_bak", "20.conf.cilium_bak", "99.json.cilium_bak", "README"}
		if diff := cmp.Diff(want, list(t, d)); diff != "" {
			t.Fatal(diff)
		}
	}
	for range 2 {
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"10-flannel.conflist", "20.conf", "99.json", "README"}, list(t, d)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestShared(t *testing.T) {
	d := dir(t, "10-flannel.conflist", "10-old.conf.cilium_bak")
	c := config(d, false)
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10-flannel.conflist", "10-old.conf.cilium_bak"}, list(t, d)); diff != "" {
		t.Error(diff)
	}
}

// What is written has to be what the library of the runtimes reads.
func TestContent(t *testing.T) {
	c := config(dir(t), true)
	c.LogFile = "/run/hypha/cni.log"
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	l, err := libcni.ConfListFromFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "cilium" || len(l.Plugins) != 1 || l.Plugins[0].Network.Type != Plugin {
		t.Errorf("read back: %+v", l)
	}
	for _, want := range []string{`"stateDir": "/var/lib/hypha"`, `"nodeName": "n1"`, `"logFile": "/run/hypha/cni.log"`} {
		if !strings.Contains(string(l.Bytes), want) {
			t.Errorf("no %s in %s", want, l.Bytes)
		}
	}
}

func TestInstall(t *testing.T) {
	d := filepath.Join(t.TempDir(), "opt", "bin")
	program := filepath.Join(t.TempDir(), "program")
	for _, v := range []string{"one", "two"} {
		if err := os.WriteFile(program, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Install(program, d); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(d, Plugin))
		info, serr := os.Stat(filepath.Join(d, Plugin))
		if err != nil || serr != nil || string(got) != v || info.Mode() != 0o755 {
			t.Errorf("%q, %v, %v, %v", got, info.Mode(), err, serr)
		}
	}
	if err := Install(filepath.Join(d, "nothing"), d); err == nil {
		t.Error("installed what is not there")
	}
	if diff := cmp.Diff([]string{Plugin}, list(t, d)); diff != "" {
		t.Error(diff)
	}
}

func TestRun(t *testing.T) {
	for _, uninstall := range []bool{false, true} {
		d := dir(t)
		c := config(d, true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, c, uninstall, slog.New(slog.DiscardHandler)) }()
		for end := time.Now().Add(5 * time.Second); len(list(t, d)) == 0 || list(t, d)[0] != filepath.Base(c.Path); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not written")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if left := len(list(t, d)); left != map[bool]int{false: 1, true: 0}[uninstall] {
			t.Errorf("uninstall %v: %d files are left", uninstall, left)
		}
	}
}
