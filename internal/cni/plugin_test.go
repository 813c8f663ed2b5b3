package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// The whole life of a workload through the reference runtime, in each version of the specification.
func TestCnitool(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cnitool keeps results in /var/lib/cni: needs root")
	}
	for _, version := range supported.SupportedVersions() {
		t.Run(version, func(t *testing.T) {
			r := newRig(t)
			r.start()
			name := "hypha-test-" + filepath.Base(r.dir)
			list := fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[%s]}`, version, name, r.conf(version, map[string]any{"name": nil, "cniVersion": nil}))
			if err := os.WriteFile(filepath.Join(r.dir, "10-hypha.conflist"), []byte(list), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				left, _ := filepath.Glob("/var/lib/cni/results/" + name + "-*")
				for _, f := range left {
					_ = os.Remove(f)
				}
			})
			ns := r.netns("a")
			tool := func(verb string) (string, error) {
				cmd := exec.Command(filepath.Join(r.bin, "cnitool"), verb, name, ns)
				cmd.Env = append(os.Environ(), "CNI_PATH="+r.bin, "NETCONFPATH="+r.dir,
					"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;HYPHA_LABEL_id=app1;HYPHA_LABEL_team=x;HYPHA_NAMED_PORTS=http:80/tcp")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			must := func(verb string) string {
				t.Helper()
				out, err := tool(verb)
				if err != nil {
					t.Fatalf("%s: %v: %s", verb, err, out)
				}
				return out
			}
			var res answer
			if out := must("add"); json.Unmarshal([]byte(out), &res) != nil || res.CNIVersion != version || len(res.IPs) != 2 || len(res.Routes) != 4 || len(res.Interfaces) != 2 {
				t.Errorf("result %s", out)
			}
			rows, _ := r.m.List("pod-name:shop/web")
			if len(rows) != 1 || !slices.Contains(rows[0].Labels.Strings(), "k8s:id=app1") || len(rows[0].NamedPorts) != 1 {
				t.Fatalf("endpoints: %+v", rows)
			}
			if version >= "0.4.0" {
				must("check")
			} else if out, err := tool("check"); err == nil {
				t.Errorf("CHECK in version %s: %s", version, out)
			}
			if version >= "1.1.0" {
				must("status")
				r.api.state = agentv1.Component_FAILURE
				if out, err := tool("status"); err == nil || !strings.Contains(out, "etcd: gone") {
					t.Errorf("status of a failing agent: %v: %s", err, out)
				}
				r.api.state = agentv1.Component_OK
				must("gc") // cnitool calls everything stale
				if rows, _ := r.m.List(""); len(rows) != 0 {
					t.Errorf("after GC: %+v", rows)
				}
				must("add")
			}
			if version >= "0.4.0" {
				r.world.RemoveDevice(rows[0].HostIfName)
				if out, err := tool("check"); err == nil || !strings.Contains(out, "not as it should be") {
					t.Errorf("CHECK without the device: %v: %s", err, out)
				}
			}
			must("del")
			must("del")
			if rows, _ := r.m.List(""); len(rows) != 0 {
				t.Errorf("after DEL: %+v", rows)
			}
		})
	}
}

func TestResult(t *testing.T) {
	r := newRig(t)
	r.start()
	ns := "CNI_NETNS=" + r.netns("a")
	a := r.call("ADD", "c1", r.conf("1.1.0", map[string]any{"mtu": 1400, "args": map[string]any{"labels": map[string]string{"id": "net", "x": "y"}}}),
		ns, "CNI_ARGS=HYPHA_LABELS=id=app1, team=z;HYPHA_NAME=web;MAC=02:11:22:33:44:55")
	if a.exit != 0 {
		t.Fatal(a.raw)
	}
	e, _ := r.m.List("container-name:web")
	want := []map[string]any{
		{"name": e[0].HostIfName, "mac": e[0].HostMAC, "mtu": 1400.0},
		{"name": "eth0", "mac": "02:11:22:33:44:55", "mtu": 1400.0, "sandbox": r.netns("a")},
	}
	if d := cmp.Diff(want, a.Interfaces); d != "" {
		t.Error(d)
	}
	ips := []map[string]any{
		{"interface": 1.0, "address": "10.1.0.2/32", "gateway": "10.1.0.1"}, {"interface": 1.0, "address": "fd00::2/128", "gateway": "fd00::1"},
	}
	if d := cmp.Diff(ips, a.IPs); d != "" {
		t.Error(d)
	}
	routes := []map[string]any{
		{"dst": "10.1.0.1/32"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "fd00::1/128"}, {"dst": "::/0", "gw": "fd00::1"},
	}
	if d := cmp.Diff(routes, a.Routes); d != "" {
		t.Error(d)
	}
	labels := []string{"k8s:id=app1", "k8s:io.kubernetes.pod.namespace=default", "k8s:team=z", "k8s:x=y"}
	if d := cmp.Diff(labels, e[0].Labels.Strings()); d != "" {
		t.Error(d)
	}
	old := r.call("ADD", "c2", r.conf("0.3.1", nil), "CNI_NETNS="+r.netns("b"))
	if old.CNIVersion != "0.3.1" || len(old.IPs) != 2 || old.IPs[0]["version"] != "4" {
		t.Errorf("old version: %s", old.raw)
	}
	// GC leaves what is valid.
	if a := r.call("GC", "", r.conf("1.1.0", map[string]any{"cni.dev/valid-attachments": []map[string]string{{"containerID": "c1", "ifname": "eth0"}}})); a.exit != 0 {
		t.Error(a.raw)
	}
	if rows, _ := r.m.List(""); len(rows) != 1 || rows[0].ContainerID != "c1" {
		t.Errorf("after GC: %+v", rows)
	}
	if log, _ := os.ReadFile(filepath.Join(r.dir, "cni.log")); !strings.Contains(string(log), "command=ADD container=c1") {
		t.Errorf("log: %s", log)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t)
	r.start()
	good := "CNI_NETNS=" + r.netns("a")
	ok := r.conf("1.1.0", nil)
	for name, c := range map[string]struct {
		command, container, stdin string
		env                       []string
		code                      int
		msg                       string
	}{
		"version too new":  {"ADD", "c", r.conf("9.0.0", nil), []string{good}, 1, "version"},
		"version too old":  {"ADD", "c", r.conf("0.1.0", nil), []string{good}, 1, "version"},
		"GC in 1.0.0":      {"GC", "", r.conf("1.0.0", nil), nil, 1, "GC"},
		"foreign IPAM":     {"ADD", "c", r.conf("1.1.0", map[string]any{"ipam": map[string]any{"type": "host-local"}}), []string{good}, 2, "ipam"},
		"chained":          {"ADD", "c", r.conf("1.1.0", map[string]any{"prevResult": map[string]any{"cniVersion": "1.1.0"}}), []string{good}, 2, "first plugin"},
		"no such netns":    {"ADD", "c", ok, []string{"CNI_NETNS=/nonexistent"}, 3, "no such"},
		"unknown to CHECK": {"CHECK", "nobody", r.conf("1.1.0", map[string]any{"prevResult": map[string]any{"cniVersion": "1.1.0"}}), []string{good}, 3, "no such endpoint"},
		"no container":     {"ADD", "", ok, []string{good}, 4, "CNI_CONTAINERID"},
		"evil container":   {"ADD", "../x", ok, []string{good}, 4, "containerID"},
		"evil interface":   {"ADD", "c", ok, []string{good, "CNI_IFNAME=a/b"}, 4, "interface"},
		"long interface":   {"DEL", "c", ok, []string{"CNI_IFNAME=0123456789abcdef"}, 4, "interface"},
		"relative netns":   {"ADD", "c", ok, []string{"CNI_NETNS=x"}, 4, "CNI_NETNS"},
		"bad args":         {"ADD", "c", ok, []string{good, "CNI_ARGS=x"}, 4, "KEY=VALUE"},
		"unknown args":     {"ADD", "c", ok, []string{good, "CNI_ARGS=FOO=1"}, 4, "FOO"},
		"reserved label":   {"ADD", "c", ok, []string{good, "CNI_ARGS=HYPHA_LABELS=reserved:host"}, 4, "reserved"},
		"bad port":         {"ADD", "c", ok, []string{good, "CNI_ARGS=HYPHA_NAMED_PORTS=http:99999"}, 4, "HYPHA_NAMED_PORTS"},
		"stolen namespace": {"ADD", "c", r.conf("1.1.0", map[string]any{"args": map[string]any{"labels": []string{"io.kubernetes.pod.namespace=kube-system"}}}), []string{good}, 7, "reserved"},
		"no JSON":          {"ADD", "c", "{", []string{good}, 6, ""},
		"wrong type":       {"ADD", "c", r.conf("1.1.0", map[string]any{"mtu": "x"}), []string{good}, 6, "mtu"},
		"no name":          {"ADD", "c", r.conf("1.1.0", map[string]any{"name": nil}), []string{good}, 7, "name"},
		"relative state":   {"ADD", "c", r.conf("1.1.0", map[string]any{"stateDir": "x"}), []string{good}, 7, "stateDir"},
		"evil node":        {"ADD", "c", r.conf("1.1.0", map[string]any{"nodeName": "../x"}), []string{good}, 7, "nodeName"},
		"small MTU":        {"ADD", "c", r.conf("1.1.0", map[string]any{"mtu": 100}), []string{good}, 7, "mtu"},
		"bad address":      {"ADD", "c", r.conf("1.1.0", map[string]any{"runtimeConfig": map[string]any{"ips": []string{"x"}}}), []string{good}, 7, "address"},
		"CHECK alone":      {"CHECK", "c", ok, []string{good}, 7, "prevResult"},
		"own netns":        {"ADD", "c", ok, []string{"CNI_NETNS=/proc/self/ns/net"}, 8, "own"},
		"no command":       {"FOO", "c", ok, []string{good}, 4, "FOO"},
	} {
		a := r.call(c.command, c.container, c.stdin, c.env...)
		if a.Code != c.code || !strings.Contains(a.Msg+a.Details, c.msg) || a.CNIVersion == "" {
			t.Errorf("%s: want code %d and %q: %s", name, c.code, c.msg, a.raw)
		}
	}
	if a := r.call("ADD", "c", ok, good); a.exit != 0 {
		t.Error(a.raw)
	}
	if a := r.call("ADD", "c", r.conf("1.1.0", map[string]any{"args": map[string]any{"labels": []string{"x=y"}}}), good); a.Code != codeConflict {
		t.Errorf("conflict: %s", a.raw)
	}
	if d, _ := os.ReadDir(r.paths.Endpoints()); len(d) != 1 {
		t.Errorf("state files: %v", d)
	}
}

// While the agent is down or does not answer, ADD fails in time and leaves nothing; DEL succeeds and is finished later.
func TestAgentDown(t *testing.T) {
	r := newRig(t)
	ns := "CNI_NETNS=" + r.netns("a")
	ok := r.conf("1.1.0", nil)
	if a := r.call("DEL", "c", ok); a.exit != 0 {
		t.Errorf("DEL where no agent ever was: %s", a.raw)
	}
	r.start()
	const n = 100
	for i := range n {
		if a := r.call("ADD", fmt.Sprintf("c%d", i), ok, ns); a.exit != 0 {
			t.Fatal(a.raw)
		}
	}
	r.stop()
	down := func(what string) {
		t.Helper()
		start := time.Now()
		a := r.call("ADD", "new", ok, ns)
		if took := time.Since(start); a.Code != 11 || !strings.Contains(a.Msg, what) || !strings.Contains(a.Msg, "n1") || took > 5*time.Second {
			t.Errorf("ADD after %v: %s", took, a.raw)
		}
	}
	down("is not running")
	if a := r.call("CHECK", "c0", r.conf("1.1.0", map[string]any{"prevResult": map[string]any{"cniVersion": "1.1.0"}}), ns); a.Code != 11 {
		t.Errorf("CHECK: %s", a.raw)
	}
	if a := r.call("STATUS", "", ok); a.Code != 50 || !strings.Contains(a.Msg, "is not running") {
		t.Errorf("STATUS: %s", a.raw)
	}
	if a := r.call("GC", "", ok); a.Code != 11 {
		t.Errorf("GC: %s", a.raw)
	}
	for i := range n {
		if a := r.call("DEL", fmt.Sprintf("c%d", i), ok, ns); a.exit != 0 {
			t.Fatal(a.raw)
		}
	}
	start := time.Now()
	r.start()
	for rows, _ := r.m.List(""); len(rows) > 0; rows, _ = r.m.List("") {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("%d endpoints are left", len(rows))
		}
		time.Sleep(time.Millisecond)
	}
	if why := r.world.Compare(nil, nil); why != "" {
		t.Error(why)
	}
	for _, dir := range []string{r.paths.PendingDel(), r.paths.Endpoints()} {
		if d, _ := os.ReadDir(dir); len(d) != 0 {
			t.Errorf("left in %s: %v", dir, d)
		}
	}
	r.stop()

	// An agent that hangs: with the connection, or with the answer.
	_ = os.Remove(r.paths.AdminSocket())
	l, err := net.Listen("unix", r.paths.AdminSocket())
	if err != nil {
		t.Fatal(err)
	}
	down("did not answer in time")
	_ = l.Close()
	release := make(chan struct{})
	shut := r.listen(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	down("did not answer in time")
	close(release)
	shut()
	// Whatever that agent may have done is to be undone.
	if d, _ := os.ReadDir(r.paths.PendingDel()); len(d) != 1 {
		t.Errorf("notes after a timeout: %v", d)
	}
}

// The plugin costs milliseconds and imports little.
func TestLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/hypha-net/hypha/cmd/hypha-cni").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, heavy := range []string{"github.com/cilium/ebpf", "go.etcd.io", "k8s.io", "google.golang.org/grpc", "github.com/vishvananda/netlink",
			"github.com/spf13", "github.com/prometheus", "github.com/hypha-net/hypha/internal/table", "github.com/hypha-net/hypha/internal/datapath"} {
			if dep == heavy || strings.HasPrefix(dep, heavy+"/") {
				t.Errorf("hypha-cni imports %s", dep)
			}
		}
	}
	r := newRig(t)
	r.start()
	conf, ns := r.conf("1.1.0", nil), "CNI_NETNS="+r.netns("a")
	best := time.Hour
	for i := range 10 {
		start := time.Now()
		if a := r.call("ADD", fmt.Sprintf("c%d", i), conf, ns); a.exit != 0 {
			t.Fatal(a.raw)
		}
		best = min(best, time.Since(start))
	}
	t.Logf("ADD takes %v", best)
	if best > 50*time.Millisecond {
		t.Errorf("ADD takes %v with an agent that has nothing to do", best)
	}
}
