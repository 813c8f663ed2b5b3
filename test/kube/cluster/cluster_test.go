package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/internal/process"
	"github.com/hypha-net/hypha/test/kube/machine"
)

func TestMain(m *testing.M) {
	if called, err := machine.Main(os.Args); called {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func cluster(t *testing.T, c Config) *Cluster {
	t.Helper()
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNew(t *testing.T) {
	for _, c := range []Config{{Name: "", Nodes: 1}, {Name: "Kube", Nodes: 1}, {Name: "1kube", Nodes: 1}, {Name: "a/b", Nodes: 1}, {Name: "tenletters", Nodes: 1},
		{Name: "kube", Nodes: 0}, {Name: "kube", Nodes: maxNodes + 1}} {
		if _, err := New(c); err == nil {
			t.Errorf("took %+v", c)
		}
	}
	k := cluster(t, Config{Name: "kube", Nodes: 2})
	if k.Dir != "/var/lib/hypha-kube/kube" || k.apiURL() != "https://172.30.0.1:6443" || !slices.Equal(k.interfaces(firstNode), []string{"172.30.0.11/24"}) {
		t.Errorf("%+v %s %v", k, k.apiURL(), k.interfaces(firstNode))
	}
	other := cluster(t, Config{Name: "other", Nodes: 2, DualStack: true})
	want := []string{fmt.Sprintf("172.30.%d.254/24", other.net), fmt.Sprintf("fd30:0:0:%x::fe/64", other.net)}
	if got := other.interfaces(routerHost); other.net == 0 || !slices.Equal(got, want) {
		t.Errorf("addresses of another: %v, want %v", got, want)
	}
}

// broken is a cluster whose API server never comes up.
func broken(t *testing.T, said *strings.Builder) *Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	programs := t.TempDir()
	for name, script := range map[string]string{
		"etcd": "exec sleep 1000", "kube-apiserver": "echo it is out of order; exit 7", "kube-controller-manager": "exec sleep 1000",
		"kube-scheduler": "exec sleep 1000", "kubelet": "exec sleep 1000", "loopback": "", "kubectl": "",
	} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k := cluster(t, Config{Name: "kubebad", Dir: filepath.Join(t.TempDir(), "k"), Nodes: 1, Programs: programs, Out: said})
	down := func() {
		if err := k.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	down()
	t.Cleanup(down)
	return k
}

// TestUpFails: who ended is named, with what it said last; nothing is taken for a cluster afterwards, and down removes it.
func TestUpFails(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a program to fail often enough")
	}
	var said strings.Builder
	k := broken(t, &said)
	err := k.Up(t.Context())
	if err == nil {
		t.Fatal("up came to its end")
	}
	for _, want := range []string{"kube-apiserver", "exit status 7", "it is out of order", "make kube-down"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if err := k.Up(t.Context()); !errors.Is(err, ErrLeftover) {
		t.Errorf("a second up: %v", err)
	}
	if err := k.Status(); !errors.Is(err, ErrUnwell) || !strings.Contains(said.String(), "exit status 7") {
		t.Errorf("status: %v\n%s", err, said.String())
	}
	id, alive, err := k.machine(control)
	if err != nil || !alive {
		t.Fatalf("the control plane: %v %v", alive, err)
	}
	ns, err := k.open(control)
	if err != nil {
		t.Fatal(err)
	}
	guest := exec.Command("sleep", "1000") // somebody's, in the network of a machine that is to go
	if err := ns.Start(guest); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- guest.Wait() }()
	if err := k.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a process runs on in a namespace that is gone")
	}
	if !strings.Contains(said.String(), "ended sleep") || strings.Contains(said.String(), "ended etcd") {
		t.Errorf("down said %s", said.String())
	}
	gone(t, k, id)
}

// TestDownWithoutState: what the names of things tell is enough.
func TestDownWithoutState(t *testing.T) {
	var said strings.Builder
	k := broken(t, &said)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Up(ctx) }()
	var id process.ID
	for range 400 {
		var alive bool
		if id, alive, _ = k.machine(control); alive {
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("up came to its end")
	}
	for _, f := range []string{"cluster.json", "control.pid"} {
		if err := os.WriteFile(k.path(f), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Up(t.Context()); err == nil {
		t.Error("up took a damaged state for none")
	}
	if err := k.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, k, id)
}

func gone(t *testing.T, k *Cluster, id process.ID) {
	t.Helper()
	names, err := netns.List(k.prefix())
	if err != nil || len(names) > 0 {
		t.Errorf("namespaces: %v %v", names, err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + k.prefix() + "*")
	if err != nil || len(groups) > 0 {
		t.Errorf("control groups: %v %v", groups, err)
	}
	if id.PID == 0 || id.Alive() {
		t.Errorf("process %v", id)
	}
	if _, err := os.Stat(k.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
	dev, err := os.ReadFile("/proc/net/dev")
	if err != nil || strings.Contains(string(dev), k.prefix()) {
		t.Errorf("its device: %v", err)
	}
}

// TestDownSparesOthers: a directory that is not a cluster's is none to remove.
func TestDownSparesOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cluster(t, Config{Name: "kubebad", Dir: dir, Nodes: 1}).Down(t.Context()); err == nil {
		t.Error("took a directory for a cluster")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it holds %v %v", left, err)
	}
}

// TestVersions: names of images say what they are built of.
func TestVersions(t *testing.T) {
	mod, err := os.ReadFile("../../../tools/kubernetes/coredns/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(DNSImage, ":")
	if !strings.Contains(string(mod), "github.com/coredns/coredns "+version+" ") {
		t.Errorf("%s is not what is built", DNSImage)
	}
}
