package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hypha-net/hypha/test/kube/cluster"
	"github.com/hypha-net/hypha/test/kube/program"
)

// lab is a cluster with Hypha as who follows the documentation gets it: the chart with its default values, in the place of kube-proxy, with
// the IP versions of the cluster.
type lab struct{ *cluster.Cluster }

// newCluster is of three nodes with both IP versions, and of the control plane as a fourth, so that the API server reaches pods and services: some
// specs ask for each of it.
func newCluster(name string) (*lab, error) {
	p, err := filepath.Abs(programs)
	if err != nil {
		return nil, err
	}
	i, err := filepath.Abs(archives)
	if err != nil {
		return nil, err
	}
	c, err := cluster.New(cluster.Config{Name: name, Nodes: 3, Member: true, DualStack: true, Programs: p, Images: i, Out: os.Stderr})
	return &lab{c}, err
}

// up makes the cluster and installs Hypha on it, and the kind of the network policy API before, which the chart leaves to others.
func (l *lab) up(ctx context.Context, b program.Builder) error {
	if err := l.Up(ctx); err != nil {
		return err
	}
	dir, _, err := b.Source(ctx, policyAPI)
	if err != nil {
		return err
	}
	crds := filepath.Join(dir, "config", "crd", "experimental", "policy.networking.k8s.io_clusternetworkpolicies.yaml")
	server, err := l.tool(ctx, "kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return err
	}
	api, err := url.Parse(server)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(api.Host)
	if err != nil {
		return err
	}
	for _, c := range [][]string{
		{"kubectl", "apply", "--server-side", "-f", crds},
		{"helm", "upgrade", "--install", "cilium", chart, "--namespace", "kube-system", "--set", "kubeProxyReplacement=true",
			"--set", "ipv6.enabled=true", "--set", "k8sServiceHost=" + host, "--set-string", "k8sServicePort=" + port},
		{"kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=5m"},
		{"kubectl", "--namespace", "kube-system", "wait", "--for=condition=Available", "deployment", "--all", "--timeout=5m"},
	} {
		if _, err := l.tool(ctx, c[0], c[1:]...); err != nil {
			return fmt.Errorf("install Hypha: %w", err)
		}
	}
	return nil
}

// tool runs a program of Kubernetes on the cluster.
func (l *lab) tool(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
