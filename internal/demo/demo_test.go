package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
	"github.com/hypha-net/hypha/internal/workload"
)

// TestMain lets the test binary stand for hypha where a test links it under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "hypha" {
		root := &cobra.Command{Use: "hypha"}
		root.AddCommand(workload.NewCommand())
		if root.Execute() != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestCheckKernel(t *testing.T) {
	for release, ok := range map[string]bool{
		"5.10.0": true, "5.10": true, "5.10-rc1": true, "6.1.0-18-amd64": true, "6.18.44-x": true, "7.2.1": true,
		"5.9.16": false, "4.19.0-26-amd64": false, "3.10.0": false, "linux": false, "": false, "6": false,
	} {
		if err := checkKernel(release); (err == nil) != ok {
			t.Errorf("%q: %v", release, err)
		}
	}
}

func TestPodCheck(t *testing.T) {
	good := pod{Name: "app4", Namespace: "default", Node: "node1", Labels: []string{"id=app2", "team=x", "k8s:a.b/c=d_e", "flag"}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*pod){
		"no name":            func(p *pod) { p.Name = "" },
		"upper case":         func(p *pod) { p.Name = "App" },
		"a path":             func(p *pod) { p.Name = "../x" },
		"a node's name":      func(p *pod) { p.Name = "node2" },
		"the world":          func(p *pod) { p.Name = "world" },
		"long name":          func(p *pod) { p.Name = strings.Repeat("a", 41) },
		"unknown node":       func(p *pod) { p.Node = "node3" },
		"no namespace":       func(p *pod) { p.Namespace = "" },
		"namespace":          func(p *pod) { p.Namespace = "a;b" },
		"empty label":        func(p *pod) { p.Labels = []string{""} },
		"no key":             func(p *pod) { p.Labels = []string{"=x"} },
		"CNI_ARGS injection": func(p *pod) { p.Labels = []string{"a=b;K8S_POD_NAMESPACE=kube-system"} },
		"reserved":           func(p *pod) { p.Labels = []string{"reserved:host"} },
		"own namespace":      func(p *pod) { p.Labels = []string{"k8s:io.kubernetes.pod.namespace=kube-system"} },
		"same key twice":     func(p *pod) { p.Labels = []string{"id=a", "id=b"} },
		"control character":  func(p *pod) { p.Labels = []string{"id=a\x1b"} },
		"long value":         func(p *pod) { p.Labels = []string{"id=" + strings.Repeat("a", 64)} },
	} {
		p := good
		change(&p)
		err := p.check()
		var usage *UsageError
		if !errors.As(err, &usage) || usage.ExitCode() != 2 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, p := range story {
		if err := p.check(); err != nil {
			t.Errorf("pod %s of the story: %v", p.Name, err)
		}
	}
}

func TestSplitExec(t *testing.T) {
	for _, c := range []struct {
		args, argv []string
		name       string
	}{
		{nil, nil, ""}, {[]string{"a"}, nil, "a"}, {[]string{"a", "--"}, nil, "a"},
		{[]string{"a", "--", "ls", "--", "-l"}, []string{"ls", "--", "-l"}, "a"}, {[]string{"a", "ls", "-l"}, []string{"ls", "-l"}, "a"},
	} {
		name, argv := splitExec(c.args)
		if name != c.name || !slices.Equal(argv, c.argv) {
			t.Errorf("%q: %q %q", c.args, name, argv)
		}
	}
}

// Flags after the pod's name are the command's.
func TestExecFlags(t *testing.T) {
	cmd := NewCommand()
	var got []string
	for _, c := range cmd.Commands() {
		if c.Name() == "exec" {
			c.RunE = func(_ *cobra.Command, args []string) error { got = args; return nil }
		}
	}
	cmd.SetArgs([]string{"exec", "app2", "--", "curl", "-o", "x", "--max-time", "2", "app1"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	name, argv := splitExec(got)
	if name != "app2" || strings.Join(argv, " ") != "curl -o x --max-time 2 app1" {
		t.Errorf("%q %q", name, argv)
	}
}

// newDemo makes a demo of its own, beside whatever runs on the machine.
func newDemo(t *testing.T) (*Demo, *bytes.Buffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	bin := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(bin, "hypha")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hypha-agent", "hypha-cni"} { // an agent that does not start
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho cannot start >&2\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := &bytes.Buffer{}
	d, err := New(Config{Dir: filepath.Join(t.TempDir(), "demo"), Bin: bin, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d, out
}

func trace(t *testing.T, d *Demo) []string {
	t.Helper()
	names, err := netns.List(d.prefix)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(d.dir); err == nil {
		names = append(names, d.dir)
		for _, e := range left {
			names = append(names, e.Name())
		}
	}
	if d.pinned() {
		names = append(names, "pins")
	}
	return names
}

// TestPartialUp: the agents cannot start. The error says why, the network stands, up can be asked again, down removes all.
func TestPartialUp(t *testing.T) {
	d, out := newDemo(t)
	for range 2 {
		if err := d.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot start") {
			t.Fatalf("Up: %v", err)
		}
	}
	n1, err := d.open("node1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, ip := range []string{outside4, outside6} { // the world answers, through the nodes' default routes
		got, err := workload.Client{Dial: n1.DialContext}.Get(ctx, "http://"+net.JoinHostPort(ip, "80"))
		if err != nil || !strings.HasPrefix(got, "world on the outside") {
			t.Errorf("%s: %q %v", ip, got, err)
		}
	}
	if _, err := d.Status(t.Context()); err != nil {
		t.Error(err)
	}
	// A command of the user's that still runs, and a write that was cut short.
	cmd := exec.Command("sleep", "60")
	if err := n1.Start(cmd); err != nil {
		t.Fatal(err)
	}
	user, err := process.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	world := d.state.World
	if !world.Alive() {
		t.Error("no server outside")
	}
	if err := os.WriteFile(d.stateFile()+".tmp", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := trace(t, d); len(left) > 0 || user.Alive() || world.Alive() {
			t.Fatalf("left: %v, user's command %v, server outside %v", left, user.Alive(), world.Alive())
		}
	}
	if !strings.Contains(out.String(), "ended sleep") {
		t.Errorf("down did not say that it ended a command:\n%s", out)
	}
	if err := d.AddPod(t.Context(), "x", "default", "node1", nil); !errors.Is(err, errNone) {
		t.Errorf("AddPod without a demo: %v", err)
	}
	if _, err := d.Pods(t.Context()); !errors.Is(err, errNone) {
		t.Errorf("Pods without a demo: %v", err)
	}
}

// TestLostState: namespaces without a state are somebody's: up refuses, down removes them.
func TestLostState(t *testing.T) {
	d, _ := newDemo(t)
	if err := d.Up(t.Context()); err == nil {
		t.Fatal("Up without an agent worked")
	}
	for _, damage := range []func() error{
		func() error { return os.WriteFile(d.stateFile(), []byte("{damaged"), 0o600) },
		func() error { return os.Remove(d.stateFile()) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if err := d.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "hypha demo down") {
			t.Errorf("Up: %v", err)
		}
	}
	if err := d.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server outside is known by its namespace alone.
	if left := trace(t, d); len(left) > 0 || d.state.World.Alive() {
		t.Fatalf("left: %v", left)
	}
	if err := d.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestForeignFiles: a directory with other things in it is neither used nor emptied.
func TestForeignFiles(t *testing.T) {
	d, _ := newDemo(t)
	file := filepath.Join(d.dir, "precious")
	if err := errors.Join(os.MkdirAll(d.dir, 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("Up: %v", err)
	}
	if err := d.Down(t.Context()); err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("Down: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatalf("the file is gone: %v", err)
	}
}

func TestLock(t *testing.T) {
	d, _ := newDemo(t)
	if _, err := d.lock(false); !errors.Is(err, errNone) {
		t.Fatalf("lock without a demo: %v", err)
	}
	unlock, err := d.lock(true)
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(Config{Dir: d.dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.lock(true); err == nil {
		t.Error("locked twice")
	}
	unlock()
	unlock, err = other.lock(true)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
