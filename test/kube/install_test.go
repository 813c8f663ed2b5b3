package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/test/kube/cluster"
)

const web = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: "registry.k8s.io/e2e-test-images/agnhost:2.55"
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// TestInstall is the life of an installation, by the commands that a user types: helm installs it, nodes get ready, workloads of all nodes
// are reached by the name of their service, cilium upgrades it and takes it away.
func TestInstall(t *testing.T) {
	var said bytes.Buffer
	k := testCluster(t, cluster.Config{Out: &said})
	if err := k.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(kubectl(t, k, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")), "https://"), ":")
	cilium, helm := filepath.Join(bin, "cilium"), filepath.Join(programs, "helm")
	run(t, k, helm, "install", "cilium", fromTop(t, filepath.Join("deploy", "chart")), "--namespace", "kube-system",
		"--set", "kubeProxyReplacement=true", "--set", "k8sServiceHost="+host, "--set", "k8sServicePort="+port)
	if out := run(t, k, cilium, "status", "--wait"); !strings.Contains(out, "Cilium:         OK") || !strings.Contains(out, "Ready: 2/2") {
		t.Errorf("status: %s", out)
	}
	kubectl(t, k, "wait", "--for=condition=Ready", "--timeout=60s", "node", "--all")
	apply(t, k, web)
	kubectl(t, k, "rollout", "status", "ds/web", "--timeout=90s")
	kubectl(t, k, "-n", "kube-system", "rollout", "status", "deploy/coredns", "--timeout=90s")

	pods := strings.Fields(kubectl(t, k, "get", "pods", "-l", "app=web", "-o", "name"))
	if len(pods) != 2 {
		t.Fatalf("pods %q", pods)
	}
	reach := func(when string) {
		t.Helper()
		for _, from := range pods {
			seen := kubectl(t, k, "exec", from, "--", "sh", "-c", "for i in $(seq 40); do curl -sm 5 http://web/hostname; echo; done")
			for _, to := range pods {
				if !strings.Contains(seen, strings.TrimPrefix(to, "pod/")) {
					t.Errorf("%s: %s does not reach %s by the service: %s", when, from, to, seen)
				}
			}
		}
	}
	reach("installed")

	run(t, k, cilium, "upgrade", "--reuse-values", "--set", "debug.enabled=true", "--set", "image.tag=devel", "--set", "operator.image.tag=devel", "--set", "rollOutCiliumPods=true", "--wait")
	run(t, k, cilium, "status", "--wait")
	if out := run(t, k, cilium, "config", "view"); !strings.Contains(out, "debug                                   true") {
		t.Errorf("options after the upgrade: %s", out)
	}
	reach("upgraded")

	run(t, k, cilium, "uninstall")
	for _, node := range []string{"node1", "node2"} {
		dir := filepath.Join(k.Dir, node, "etc", "cni", "net.d")
		var left []os.DirEntry
		var err error
		for range 60 { // the agents end after the command that has them end
			if left, err = os.ReadDir(dir); err != nil || len(left) == 0 {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		if err != nil || len(left) > 0 {
			t.Errorf("%s after the uninstall: %v, %v", dir, left, err)
		}
	}
	if out := kubectl(t, k, "-n", "kube-system", "get", "ds,deploy,cm,sa,secret", "-o", "name"); strings.Contains(out, "cilium") || strings.Contains(out, "helm") {
		t.Errorf("after the uninstall: %s", out)
	}
	reach("uninstalled: workloads keep their network")
}
