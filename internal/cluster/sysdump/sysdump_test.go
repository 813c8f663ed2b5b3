package sysdump

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/hypha-net/hypha/internal/testutil/kubeapi"
)

// unpack reads a dump: its files by name, without the directory that all are in.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close() //nolint:errcheck // read only
	out := map[string]string{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		top, rest, _ := strings.Cut(f.Name, "/")
		if top != strings.TrimSuffix(filepath.Base(file), ".zip") || path.IsAbs(rest) || strings.Contains(rest, "..") {
			t.Errorf("file %q", f.Name)
		}
		out[rest] = string(text)
	}
	return out
}

func optionsFor(t *testing.T) *options {
	return &options{namespace: "kube-system", output: filepath.Join(t.TempDir(), "dump-<ts>"), agents: "k8s-app=cilium", operators: "io.cilium/app=operator",
		since: time.Hour, limit: 1 << 20, workers: 4, flows: 10}
}

func dumpOf(t *testing.T, o *options) map[string]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(o.output), "*"))
	if err != nil || len(found) != 1 || !strings.HasSuffix(found[0], ".zip") {
		t.Fatalf("files left: %v %v", found, err)
	}
	if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the dump: %v %v", info.Mode(), err)
	}
	return unpack(t, found[0])
}

// TestObjects dumps a real API server with nodes that nobody runs: what can be had is there, what cannot is told, secrets are neither.
func TestObjects(t *testing.T) {
	api := kubeapi.Start(t)
	api.Install(t)
	api.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: cilium-config, namespace: kube-system}, data: {debug: "true", etcd-password: s3cret1}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: kube-system}, data: {a: s3cret2}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: kube-system}, stringData: {a: s3cret3}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: n1}, spec: {}}
---
{apiVersion: cilium.io/v2alpha1, kind: CiliumPodIPPool, metadata: {name: blue}, spec: {ipv4: {cidrs: [10.0.0.0/24], maskSize: 28}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cilium-x, namespace: kube-system, labels: {k8s-app: cilium}, annotations: {kubectl.kubernetes.io/last-applied-configuration: s3cret4}}, spec: {nodeName: n1, containers: [{name: cilium-agent, image: i, env: [{name: DB_PASSWORD, value: s3cret5}, {name: PLAIN, value: shown}]}]}, status: {phase: Running, containerStatuses: [{name: cilium-agent, image: i, imageID: i, ready: true, restartCount: 1, state: {running: {}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cilium-y, namespace: kube-system, labels: {k8s-app: cilium}}, spec: {nodeName: n2, containers: [{name: cilium-agent, image: i}]}}`)
	conf, err := clientcmd.BuildConfigFromFlags("", api.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	o := optionsFor(t)
	o.nodes = []string{"n1"}
	var said bytes.Buffer
	if err := o.run(t.Context(), &said, conf, nil); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	files := dumpOf(t, o)
	for name, want := range map[string]string{"objects/nodes.yaml": "name: n1", "objects/ciliumnodes.yaml": "name: n1", "objects/ciliumpodippools.yaml": "maskSize: 28",
		"objects/pods.yaml": "shown", "objects/cilium-config.yaml": "debug: \"true\"", "kubernetes-version.txt": "v1.", "errors.txt": "log of cilium-agent of pod cilium-x"} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s lacks %q:\n%.2000s", name, want, files[name])
		}
	}
	for name, text := range files {
		if strings.Contains(text, "s3cret") {
			t.Errorf("%s holds a secret:\n%.2000s", name, text)
		}
	}
	if !strings.Contains(said.String(), "status --verbose` of n1: ") || strings.Contains(said.String(), "of n2") || !strings.Contains(said.String(), "The dump is in /") {
		t.Errorf("said:\n%s", said.String())
	}
}

func TestNoCluster(t *testing.T) {
	conf, err := clientcmd.BuildConfigFromFlags("https://127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}
	o := optionsFor(t)
	if err := o.run(t.Context(), io.Discard, conf, nil); err == nil || !strings.Contains(err.Error(), "reach cluster") {
		t.Errorf("a cluster that is not there: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(o.output)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A program that stands for the command line: it says what it was asked, and of whom.
func TestNode(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hypha")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n[ \"$1\" != doctor ] || { echo not well; exit 1; }\n[ \"$1\" != map ] || { echo half; echo no maps >&2; exit 1; }\necho \"$HYPHA_STATE_DIR: $*\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := newArchive(filepath.Join(t.TempDir(), "x.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.remove() //nolint:errcheck // the test's directory goes anyway
	o := optionsFor(t)
	o.quick = true
	failed := runAll(t.Context(), ask(a, "../n:1", onNode(program, []string{"HYPHA_STATE_DIR=/state"}), o), 3, io.Discard)
	if len(failed) != 1 || !strings.Contains(failed[0].err.Error(), "no maps") {
		t.Errorf("failed: %v", failed)
	}
	for name, want := range map[string]string{"status.txt": "/state: status --verbose\n", "doctor.txt": "not well\n", "map-list.txt": "half\n"} {
		if got, err := os.ReadFile(filepath.Join(a.dir, "agents", "-n-1", name)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(a.dir, "agents", "-n-1", "bpf-ct.txt")); err == nil {
		t.Error("a quick dump has the connections")
	}
}

func TestRunAll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tasks []task
	for i := range 6 {
		tasks = append(tasks, task{fmt.Sprint(i), func(context.Context) error {
			switch i {
			case 1:
				return errors.New("no")
			case 2:
				panic("at the disco")
			case 4:
				cancel()
			}
			return nil
		}})
	}
	var got []string
	for _, f := range runAll(ctx, tasks, 1, io.Discard) {
		got = append(got, fmt.Sprint(f.what, " ", f.err))
	}
	if !slices.Equal(got[:2], []string{"1 no", "2 panic: at the disco"}) || len(got) > 3 {
		t.Errorf("failed: %q", got)
	}
}
