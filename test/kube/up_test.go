package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/kube/cluster"
	"github.com/hypha-net/hypha/test/kube/machine"
)

func TestMain(m *testing.M) {
	if called, err := machine.Main(os.Args); called {
		exit(err)
	}
	os.Exit(m.Run())
}

// traces are all things by which a cluster could be seen on this machine: namespaces, mounts, control groups, processes, devices, routes.
func traces(t *testing.T) []string {
	t.Helper()
	var out []string
	names, err := netns.List("hypha-kubetest")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		out = append(out, "namespace "+n)
	}
	for _, kind := range []string{"*", "*/*"} {
		groups, err := filepath.Glob("/sys/fs/cgroup/" + kind + "/hypha-kubetest*")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, groups...)
	}
	for _, file := range []string{"/proc/self/mountinfo", "/proc/net/dev", "/proc/net/route"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "kubetest") {
				out = append(out, file+": "+line)
			}
		}
	}
	members, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range members {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "kubetest") {
			out = append(out, f)
		}
	}
	return out
}

// testCluster is a cluster that is not up yet, and is removed after the test.
func testCluster(t *testing.T, config cluster.Config) *cluster.Cluster {
	t.Helper()
	if os.Getenv("HYPHA_KUBE") == "" {
		t.Skip("set HYPHA_KUBE=1, as root and after `make kube-images`: makes a Kubernetes cluster")
	}
	config.Name, config.Dir, config.Nodes = "kubetest", filepath.Join(t.TempDir(), "kubetest"), 2
	config.Programs, config.Images = fromTop(t, programs), fromTop(t, archives)
	k, err := cluster.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Down(t.Context()); err != nil { // of a run that was killed
		t.Fatal(err)
	}
	if left := traces(t); len(left) > 0 {
		t.Fatalf("there are traces of a cluster: %v", left)
	}
	t.Cleanup(func() {
		if err := k.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return k
}

// fromTop is a place of the project, seen from anywhere.
func fromTop(t *testing.T, place string) string {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join("..", "..", place))
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// TestUp makes a cluster of three nodes with both IP versions, one of them the control plane, runs a pod on each, runs commands in them, and removes it.
func TestUp(t *testing.T) {
	var said bytes.Buffer
	k := testCluster(t, cluster.Config{DualStack: true, Member: true, Out: &said})
	start := time.Now()
	if err := k.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(start).Round(time.Second))
	said.Reset()
	if len(traces(t)) < 20 {
		t.Errorf("a cluster that runs has few traces, so they would not be found later: %v", traces(t))
	}
	if err := k.Up(t.Context()); err != nil || !strings.Contains(said.String(), "runs already") {
		t.Errorf("the second up: %v, %s", err, said.String())
	}
	if err := k.Status(); err != nil {
		t.Errorf("status: %v\n%s", err, said.String())
	}
	nodes := kubectl(t, k, "get", "nodes", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.spec.podCIDRs}{"\n"}{end}`)
	for _, want := range []string{`control False ["10.244.`, `node1 False ["10.244.`, `node2 False ["10.244.`, "fd00:10:244:"} { // not ready: there is no network
		if !strings.Contains(nodes, want) {
			t.Errorf("no %q in %s", want, nodes)
		}
	}
	if roles := kubectl(t, k, "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name"); roles != "node/control\n" {
		t.Errorf("nodes of the control plane: %s", roles)
	}
	if err := k.Load(t.Context()); err != nil {
		t.Error(err)
	}
	for _, node := range []string{"control", "node1", "node2"} {
		pod(t, k, node)
	}
	for _, node := range []string{"control", "node1", "node2"} {
		kubectl(t, k, "wait", "--for=condition=Ready", "--timeout=120s", "pod/on-"+node)
		if out := kubectl(t, k, "exec", "on-"+node, "--", "sh", "-c",
			"hostname; ip -o addr show eth0; curl -s http://127.0.0.1:8080/hostname"); !strings.Contains(out, node+"\n") ||
			!strings.Contains(out, "172.30.") || !strings.Contains(out, "fd30:") || !strings.HasSuffix(out, node) {
			t.Errorf("in the pod on %s: %s", node, out)
		}
		if out := kubectl(t, k, "logs", "on-"+node); !strings.Contains(out, "8080") {
			t.Errorf("log of the pod on %s: %s", node, out)
		}
	}
	if err := k.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := k.Down(t.Context()); err != nil {
		t.Errorf("the second down: %v", err)
	}
}

// pod runs a server in the node's own network on a node that is not ready.
func pod(t *testing.T, k *cluster.Cluster, node string) {
	t.Helper()
	manifest := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: on-%[1]s}
spec:
  hostNetwork: true
  nodeName: %[1]s
  tolerations: [{operator: Exists}]
  containers:
  - name: a
    image: "registry.k8s.io/e2e-test-images/agnhost:2.55"
    imagePullPolicy: Never
    args: [netexec]
    readinessProbe: {httpGet: {path: /hostname, port: 8080}}
`, node)
	apply(t, k, manifest)
}

func apply(t *testing.T, k *cluster.Cluster, manifest string) {
	t.Helper()
	cmd := exec.Command(fromTop(t, filepath.Join(programs, "kubectl")), "--kubeconfig", k.Kubeconfig(), "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func kubectl(t *testing.T, k *cluster.Cluster, args ...string) string {
	t.Helper()
	return run(t, k, filepath.Join(programs, "kubectl"), args...)
}

// run runs a program of the project's against the cluster, and is what it prints.
func run(t *testing.T, k *cluster.Cluster, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, fromTop(t, program), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		all, _ := exec.Command(fromTop(t, filepath.Join(programs, "kubectl")), "--kubeconfig", k.Kubeconfig(), "describe", "pods", "-A").CombinedOutput()
		t.Fatalf("%s %s: %v: %s%s\n%s", program, strings.Join(args, " "), err, out.String(), errOut.String(), all)
	}
	return out.String()
}
