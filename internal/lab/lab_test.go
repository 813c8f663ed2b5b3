package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/hypha-net/hypha/internal/testutil/netns"
)

// script writes an executable that stands for a binary.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindBinaries(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hypha", "hypha-agent", "hypha-cni"} {
		if _, err := FindBinaries(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("before %s is there: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := FindBinaries(dir); err != nil || b.CNI != filepath.Join(dir, "hypha-cni") {
		t.Fatalf("%+v %v", b, err)
	}
}

func TestAttachmentAdd(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	a := Attachment{
		CNI: script(t, `{ echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS"; cat; } >`+seen+`
echo '{"cniVersion":"1.1.0","ips":[{"address":"10.10.0.7/32"},{"address":"fd10::7/128"}]}'`),
		StateDir: "/x", Node: "node1", ContainerID: "c1", NetNS: "/run/netns/c1", Pod: "app1", Namespace: "default", Labels: []string{"id=app1", "team=x"},
	}
	addrs, err := a.Add(t.Context())
	if err != nil || !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("10.10.0.7"), netip.MustParseAddr("fd10::7")}) {
		t.Fatalf("Add: %v %v", addrs, err)
	}
	got, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	want := `ADD c1 /run/netns/c1 eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=app1;HYPHA_LABELS=id=app1,team=x
{"cniVersion":"1.1.0","name":"hypha","nodeName":"node1","stateDir":"/x","type":"hypha-cni"}`
	if strings.TrimSpace(string(got)) != want {
		t.Errorf("the plugin saw\n%s\nwant\n%s", got, want)
	}
}

func TestAttachmentErrors(t *testing.T) {
	a := Attachment{CNI: script(t, `echo '{"cniVersion":"1.1.0","code":11,"msg":"agent is down","details":"start it"}'; exit 1`), Pod: "p"}
	_, err := a.Add(t.Context())
	var said *types.Error
	if !errors.As(err, &said) || said.Code != 11 || !strings.Contains(err.Error(), "agent is down") {
		t.Errorf("a CNI error: %v", err)
	}
	a.CNI = script(t, `echo boom >&2; exit 2`)
	if err := a.Del(t.Context()); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("a crash: %v", err)
	}
	a.CNI = script(t, `echo '{}'`)
	if _, err := a.Add(t.Context()); err == nil {
		t.Error("a result without addresses was taken")
	}
}

// An agent that ends at once is reported with the end of its log, not waited for.
func TestAgentEndsEarly(t *testing.T) {
	ns := netns.New(t, "n")
	dir := t.TempDir()
	a := Agent{
		Binary: script(t, `cat "$2"; echo "no such option" >&2; exit 3`), NS: ns.NS, StateDir: dir, Node: "n1",
		Config: filepath.Join(dir, "n1.yaml"), Log: filepath.Join(dir, "log", "n1.log"), Options: map[string]any{"node-ip": []string{"172.29.0.1"}},
	}
	t.Cleanup(func() {
		if err := RemoveCgroup(a.Paths()); err != nil {
			t.Error(err)
		}
	})
	p, err := a.Start()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err = a.WaitReady(ctx, p, 1); err == nil || !strings.Contains(err.Error(), "no such option") || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("WaitReady: %v", err)
	}
	log := Tail(a.Log, 100)
	for _, want := range []string{"node-ip:\n- 172.29.0.1", "node-name: n1", "state-dir: " + dir} {
		if !strings.Contains(log, want) {
			t.Errorf("the options lack %q:\n%s", want, log)
		}
	}
}

func TestWorkloadNotReady(t *testing.T) {
	ns := netns.New(t, "n")
	w := Workload{Hypha: script(t, `echo "port is taken" >&2; exit 1`), NS: ns.NS, Name: "p", Node: "n", Log: filepath.Join(t.TempDir(), "log")}
	if _, err := StartWorkload(w, 5*time.Second); err == nil || !strings.Contains(err.Error(), "port is taken") {
		t.Errorf("a workload that fails: %v", err)
	}
	w.Hypha = script(t, `exec sleep 60`)
	begin := time.Now()
	if _, err := StartWorkload(w, 100*time.Millisecond); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("a workload that hangs: %v after %s", err, time.Since(begin))
	}
	w.Hypha = script(t, `echo ready >&3; exec 3>&-; exec sleep 60`)
	p, err := StartWorkload(w, 5*time.Second)
	if err != nil || !p.ID.Alive() {
		t.Fatalf("a good workload: %v", err)
	}
	if err := p.ID.Stop(time.Second); err != nil {
		t.Error(err)
	}
	<-p.Done()
}
