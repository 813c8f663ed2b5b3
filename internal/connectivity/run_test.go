package connectivity

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hypha-net/hypha/internal/workload"
)

// one is the tests of these names.
func one(t *testing.T, names ...string) []*Test {
	t.Helper()
	out := slices.DeleteFunc(Suite(), func(x *Test) bool { return !slices.Contains(names, x.Name) })
	if len(out) != len(names) {
		t.Fatalf("there are %d tests of %v", len(out), names)
	}
	return out
}

func run(t *testing.T, p *fakePlace, suite []*Test, change func(*Config)) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := Config{Flows: FlowsStrict, FlowsWait: time.Millisecond, ConnectTimeout: time.Second, RequestTimeout: time.Second, Parallel: 4}
	if change != nil {
		change(&c)
	}
	err := Run(t.Context(), p, suite, c, NewLog(&out, false))
	return out.String(), err
}

// TestSuite: every test passes where policy is kept, and every one that expects a refusal fails where it is not.
func TestSuite(t *testing.T) {
	names := map[string]bool{}
	for _, x := range Suite() {
		if names[x.Name] {
			t.Errorf("two tests are called %s", x.Name)
		}
		names[x.Name] = true
		if x.Skip != "" {
			continue
		}
		p := newFake([]*Test{x})
		out, err := run(t, p, []*Test{x}, nil)
		if err != nil || len(x.actions) == 0 || p.applied != 0 {
			t.Errorf("%s: %v, %d actions\n%s", x.Name, err, len(x.actions), out)
		}
		refused := slices.ContainsFunc(x.actions, func(a *Action) bool { return a.Want.Dropped })
		again := one(t, x.Name)
		p = newFake(again)
		p.fault = func(*Peer, string, Result) (string, *Result) { return workload.Reached, nil }
		if _, err := run(t, p, again, nil); (err != nil) != refused {
			t.Errorf("%s, everybody reaches everybody: %v", x.Name, err)
		}
		again = one(t, x.Name)
		p = newFake(again)
		p.fault = func(*Peer, string, Result) (string, *Result) { return workload.TimedOut, &EgressDefaultDeny }
		everywhere := !slices.ContainsFunc(x.actions, func(a *Action) bool { return a.Want != EgressDefaultDeny })
		if _, err := run(t, p, again, nil); (err == nil) != everywhere {
			t.Errorf("%s, nobody reaches anybody: %v", x.Name, err)
		}
	}
}

func TestRun(t *testing.T) {
	suite := one(t, "no-policies", "all-egress-deny", "all-egress-deny-knp", "to-fqdns")
	p := newFake(suite)
	clear(p.wants) // that of no-policies; the other is judged by the fault below
	p.site.Missing = map[Need]string{KubePolicy: "there is no Kubernetes", HostPort: "there are no host ports"}
	p.fault = func(*Peer, string, Result) (string, *Result) {
		if p.applied > 0 {
			return workload.TimedOut, &EgressDefaultDeny
		}
		return "", nil
	}
	out, err := run(t, p, suite, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"🏃[cilium-test-1] Running 4 tests ...\n[=] [cilium-test-1] Test [no-policies] [1/4]\n....",
		"[=] [cilium-test-1] Skipping test [all-egress-deny-knp] [3/4] (there is no Kubernetes)\n",
		"[=] [cilium-test-1] Skipping test [to-fqdns] [4/4] (DNS and FQDN policy is not supported yet)\n",
		"✅ [cilium-test-1] All 2 tests (", " actions) successful, 2 tests skipped, 1 scenarios skipped.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got := strings.Join(p.events, ", "); got != "apply CiliumNetworkPolicy deny-all-egress, remove, close" {
		t.Errorf("events: %s", got)
	}
}

// TestFailure: each way in which a refusal is none, or an answer does not come, is told and ends the run with an error.
func TestFailure(t *testing.T) {
	drop := IngressDeny
	for name, c := range map[string]struct {
		outcome string
		drop    *Result
		says    string
		warns   bool // passes with a warning where that is asked for
	}{
		"reached":           {workload.Reached, nil, "reached after 1ms, but wanted is a drop at egress by default deny", false},
		"a reset":           {workload.Refused, nil, "refused: refused; wanted is a drop at egress by default deny, which is silent", false},
		"no name":           {workload.Failed, nil, "failed: failed; wanted", false},
		"nobody dropped it": {workload.TimedOut, nil, "nobody answered, but no node tells of having dropped it", true},
		"another reason":    {workload.TimedOut, &drop, "it was dropped otherwise: 10.0.0.1 -> 10.0.0.4 on n1, INGRESS POLICY_DENY: told", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []FlowValidation{FlowsStrict, FlowsWarn} {
				suite := one(t, "all-egress-deny")
				p := newFake(suite)
				p.fault = func(from *Peer, target string, _ Result) (string, *Result) {
					if from.Is("name", "client") && target == "http://10.0.0.4:8080" {
						return c.outcome, c.drop
					}
					return "", nil
				}
				out, err := run(t, p, suite, func(cfg *Config) { cfg.Flows = mode })
				var failed *FailedError
				if c.warns && mode == FlowsWarn {
					if err != nil || !strings.Contains(out, "ℹ️  ") || !strings.Contains(out, c.says) {
						t.Errorf("%s: %v\n%s", mode, err, out)
					}
					continue
				}
				if !errors.As(err, &failed) || failed.Tests != 1 || !strings.Contains(out, c.says) {
					t.Fatalf("%s: %v\n%s", mode, err, out)
				}
				for _, want := range []string{"📋 Test Report [cilium-test-1]\n❌ 1/1 tests failed (1/12 actions), 0 tests skipped, 0 scenarios skipped:\nTest [all-egress-deny]:\n",
					"  ❌ all-egress-deny/pod-to-pod/curl-ipv4-0: cilium-test-1/client (10.0.0.1) -> cilium-test-1/echo-same-node (10.0.0.4:8080)\n"} {
					if !strings.Contains(out, want) {
						t.Errorf("no %q in\n%s", want, out)
					}
				}
			}
		})
	}
}

// TestExplain: an answer that does not come is told together with who dropped the packets.
func TestExplain(t *testing.T) {
	suite := one(t, "client-egress")
	p := newFake(suite)
	p.fault = func(*Peer, string, Result) (string, *Result) { return workload.TimedOut, &EgressDeny }
	out, err := run(t, p, suite, nil)
	if err == nil || !strings.Contains(out, "ℹ️  dropped: 10.0.0.1 -> 10.0.0.4 on n1, EGRESS POLICY_DENY: told") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDeaf: where nodes cannot be asked, that nobody answers has to do, and is said.
func TestDeaf(t *testing.T) {
	suite := one(t, "all-egress-deny")
	p := newFake(suite)
	p.deaf, p.silent = errDeaf, true
	if out, err := run(t, p, suite, nil); err != nil || !strings.Contains(out, "disabling flow validation: no socket") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestInterrupt: an interrupt in the middle of a test takes policies and workloads away.
func TestInterrupt(t *testing.T) {
	suite := one(t, "all-egress-deny", "client-egress")
	p := newFake(suite)
	ctx, cancel := context.WithCancelCause(t.Context())
	p.onExec = func() { cancel(context.Canceled) }
	var out bytes.Buffer
	err := Run(ctx, p, suite, Config{Flows: FlowsStrict, Parallel: 1}, NewLog(&out, false))
	if !errors.Is(err, context.Canceled) || p.applied != 0 {
		t.Errorf("%v, %d policies are left", err, p.applied)
	}
	if got := strings.Join(p.events, ", "); got != "apply CiliumNetworkPolicy deny-all-egress, remove, close" {
		t.Errorf("events: %s\n%s", got, out.String())
	}
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		filter []string
		want   []string
	}{
		{[]string{"^client-ingress$", "no-policies/pod-to-service"}, []string{"no-policies/pod-to-service"}},
		{[]string{"^client-ingress/"}, []string{"client-ingress/client-to-client"}},
		{[]string{"^(client-ingress|no-policies-extra)/", "!local"}, []string{"no-policies-extra/pod-to-remote-nodeport", "client-ingress/client-to-client"}},
	} {
		sel, err := Select(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		suite := Suite()
		p := newFake(one(t, "client-ingress"))
		if out, err := run(t, p, suite, func(cfg *Config) { cfg.Selection = sel }); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var got []string
		for _, x := range suite {
			for _, a := range x.actions {
				if name := x.Name + "/" + a.Scenario; !slices.Contains(got, name) {
					got = append(got, name)
				}
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v", c.filter, got)
		}
	}
	if _, err := Select([]string{"("}); err == nil {
		t.Error("a broken expression was taken")
	}
}

func TestJUnit(t *testing.T) {
	suite := one(t, "no-policies", "all-egress-deny", "to-fqdns")
	p := newFake(suite[1:])
	p.fault = func(from *Peer, target string, r Result) (string, *Result) {
		if r.Dropped && from.Is("name", "client") && target == "http://10.0.0.4:8080" {
			return workload.Reached, nil
		}
		if p.applied == 0 {
			return workload.Reached, nil
		}
		return "", nil
	}
	if _, err := run(t, p, suite, nil); err == nil {
		t.Fatal("nothing failed")
	}
	file := filepath.Join(t.TempDir(), "junit.xml")
	if err := WriteJUnit(file, suite, time.Unix(0, 0), []string{"connectivity", "test"}, map[string]string{"b": "2", "a": "1"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var status []string
	for _, c := range got.Suite.Cases {
		status = append(status, c.Name+" "+c.Status)
	}
	if strings.Join(status, ", ") != "no-policies passed, all-egress-deny failed, to-fqdns skipped" || got.Tests != 3 || got.Failures != 1 || got.Disabled != 1 {
		t.Errorf("%v\n%s", status, text)
	}
	if f := got.Suite.Cases[1].Failure; f == nil || !strings.Contains(f.Text, "curl-ipv4-0") || !strings.Contains(f.Text, "reached after") {
		t.Errorf("%s", text)
	}
	if !slices.Equal(got.Suite.Properties, []junitProperty{{"Args", "connectivity|test"}, {"a", "1"}, {"b", "2"}}) {
		t.Errorf("%v", got.Suite.Properties)
	}
}

// TestManifests: every policy is read, belongs to a test, and a clusterwide one speaks of the tests' namespace alone.
func TestManifests(t *testing.T) {
	p := newFake(nil)
	used := map[string]bool{}
	for _, x := range Suite() {
		for _, name := range x.Policies {
			used[name+".yaml"] = true
			d, err := document(name, p.site.values(x.Ranged))
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind == "" || d.Name == "" || d.Kind == "CiliumNetworkPolicy" && d.Namespace != "cilium-test-1" {
				t.Errorf("%s: %+v", name, d)
			}
			if x.Ranged != strings.Contains(string(d.YAML()), "endPort") && !strings.HasPrefix(name, "allow-all") {
				t.Errorf("%s: ranges %v\n%s", x.Name, x.Ranged, d.YAML())
			}
			if wide := d.clusterwide(); x.Clusterwide && strings.Count(string(wide.YAML()), "io.kubernetes.pod.namespace: cilium-test-1") == 0 {
				t.Errorf("%s, clusterwide:\n%s", name, wide.YAML())
			}
		}
	}
	all, err := manifests.ReadDir("policy")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if !used[f.Name()] {
			t.Errorf("no test has the policy %s", f.Name())
		}
	}
}
