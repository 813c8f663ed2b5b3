package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runner runs suites against a cluster.
type runner struct {
	programs   string // directory of the suites' programs
	reports    string // directory that reports and logs go to
	kubeconfig string
	procs      int
}

// patience is how long a group may take.
const patience = 4 * time.Hour

// run runs the specs of a group, or those of them that match focus too. Specs that fail are no error.
func (r runner) run(ctx context.Context, g group, focus string) ([]spec, error) {
	dir, err := filepath.Abs(r.reports)
	if err != nil {
		return nil, err
	}
	r.reports = dir
	if err := os.MkdirAll(r.reports, 0o755); err != nil {
		return nil, err
	}
	if g.focus == nil {
		return r.policy(ctx, g, focus)
	}
	return r.ginkgo(ctx, g, focus)
}

func (r runner) ginkgo(ctx context.Context, g group, focus string) ([]spec, error) {
	re := g.focus
	if focus != "" {
		narrow, err := regexp.Compile(focus)
		if err != nil {
			return nil, err
		}
		// Both in one: ginkgo runs what matches any of several.
		if re, err = regexp.Compile(`(?:` + re.String() + `).*` + narrow.String() + `|` + narrow.String() + `.*(?:` + re.String() + `)`); err != nil {
			return nil, err
		}
	}
	nodes, err := r.nodes(ctx)
	if err != nil {
		return nil, err
	}
	lacking := missing()
	file := filepath.Join(r.reports, g.name+".json")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	args := []string{"--procs", strconv.Itoa(r.procs), "--timeout", patience.String(), "--no-color", "--focus", re.String(),
		"--output-dir", r.reports, "--json-report", filepath.Base(file)}
	for _, l := range lacking {
		args = append(args, "--skip", l.spec.String())
	}
	args = append(args, filepath.Join(r.programs, "e2e.test"), "--", "--kubeconfig", r.kubeconfig, "--provider", "skeleton", "--dns-domain", "cluster.local",
		"--num-nodes", strconv.Itoa(nodes), "--report-dir", filepath.Join(r.reports, g.name))
	ended := r.exec(ctx, g, filepath.Join(r.programs, "ginkgo"), args...)
	f, err := os.Open(file)
	if err != nil {
		return nil, errors.Join(ended, err)
	}
	defer func() { _ = f.Close() }()
	specs, err := readGinkgo(f, re, lacking)
	if err != nil {
		return nil, errors.Join(ended, err)
	}
	return blame(specs, ended), nil
}

// nodes counts those that pods run on: some specs want to be told.
func (r runner) nodes(ctx context.Context) (int, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(r.programs, "kubectl"), "--kubeconfig", r.kubeconfig, "get", "nodes", "--output", "name",
		"--selector", "!node-role.kubernetes.io/control-plane").Output()
	if err != nil {
		return 0, fmt.Errorf("count the nodes: %w", err)
	}
	return strings.Count(string(out), "\n"), nil
}

// policyTest is the test whose tests are the specs of the network policy API.
const policyTest = "TestConformance"

func (r runner) policy(ctx context.Context, g group, focus string) ([]spec, error) {
	args := []string{"tool", "test2json", "-t", filepath.Join(r.programs, "policy.test"), "-test.v", "-test.timeout", patience.String(),
		"-test.run", "^" + policyTest + "$" + under(focus), "-all-features"}
	ended := r.exec(ctx, g, "go", args...)
	f, err := os.Open(r.log(g))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	specs, err := readTests(f, policyTest, missing())
	if err != nil {
		return nil, errors.Join(ended, err)
	}
	return blame(specs, ended), nil
}

func under(focus string) string {
	if focus == "" {
		return ""
	}
	return "/" + focus
}

// blame makes a suite that ended with an error and without a failed spec a failure of its own.
func blame(specs []spec, ended error) []spec {
	if ended == nil || count(specs).failed > 0 {
		return specs
	}
	return append(specs, spec{name: "the suite itself", outcome: failed, reason: ended.Error()})
}

func (r runner) log(g group) string { return filepath.Join(r.reports, g.name+".log") }

// exec runs a program, whose output goes to the group's log. Interrupted, it has a while to clean up.
func (r runner) exec(ctx context.Context, g group, name string, args ...string) error {
	log, err := os.Create(r.log(g))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	fmt.Fprintf(os.Stderr, "running %s; see %s\n", g.name, r.log(g))
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+r.kubeconfig)
	cmd.Dir = r.reports
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	cmd.WaitDelay = time.Minute
	return cmd.Run()
}
