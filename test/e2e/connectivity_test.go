package e2e

import (
	"bytes"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	tns "github.com/hypha-net/hypha/internal/testutil/netns"
)

// connectivity runs `hypha connectivity test` on a demo and returns what it printed and its exit code.
func (d demoRun) connectivity(args ...string) (string, int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), bin.Hypha, append([]string{"connectivity", "test", "--state-dir", d.dir}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestConnectivityCommand runs some of the connectivity tests on a demo: they pass, they fail where a policy is in the way, and what they have
// deployed goes, after an interrupt as well.
func TestConnectivityCommand(t *testing.T) {
	tns.Require(t)
	if testing.Short() {
		t.Skip("takes long: not with -short")
	}
	d := newDemo(t)
	dir := d.dir
	t.Cleanup(func() {
		if out, err := exec.Command(bin.Hypha, "demo", "--dir", dir, "down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	if out, code := d.connectivity(); code != 1 || !strings.Contains(out, "no agent found") {
		t.Errorf("without a demo: %d %s", code, out)
	}
	d.ok("up")
	before := d.traces()
	same := func(when string) {
		t.Helper()
		if now := d.traces(); now != before {
			t.Errorf("%s there is\n%swhere there was\n%s", when, now, before)
		}
	}

	report := filepath.Join(t.TempDir(), "junit.xml")
	out, code := d.connectivity("--junit-file", report, "--junit-property", "kind=demo",
		"--test", "no-policies,^echo-ingress/,^client-egress-to-cidr-deny/,named-port-deny/,icmp-deny-ccnp,north-south-loadbalancing/,^to-fqdns")
	if code != 0 || !strings.Contains(out, "✅ [cilium-test-1] All 8 tests (") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	same("after it passed")
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
	}
	if err := xml.Unmarshal(text, &got); err != nil || got.Tests < 100 || got.Failures != 0 || !strings.Contains(string(text), `name="kind" value="demo"`) {
		t.Errorf("%v %+v\n%s", err, got, text)
	}

	t.Run("denied", func(t *testing.T) {
		d := demoRun{t: t, dir: dir}
		standing := filepath.Join(t.TempDir(), "standing.yaml")
		policy := "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: standing-deny}\n" +
			"spec: {endpointSelector: {matchLabels: {name: client2}}, egressDeny: [{toEndpoints: [{matchLabels: {kind: echo}}]}]}\n"
		if err := os.WriteFile(standing, []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(bin.Hypha, "policy", "import", standing, "--state-dir", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, code := d.connectivity("--test", "no-policies/pod-to-pod,^echo-ingress/", "--request-timeout", "2s")
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
		for _, want := range []string{
			"❌ 2/2 tests failed (8/24 actions)", // client2 reaches no echo server, by either IP version
			"❌ Action [no-policies/pod-to-pod/curl-ipv4-4: cilium-test-1/client2 (", "EGRESS POLICY_DENY", "standing-deny", "connectivity test failed: 2 tests failed",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if out, err := exec.Command(bin.Hypha, "policy", "delete", "--name", "standing-deny", "--state-dir", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	same("after it failed")

	t.Run("interrupted", func(t *testing.T) {
		cmd := exec.Command(bin.Hypha, "connectivity", "test", "--state-dir", dir, "--test", "^all-egress-deny/", "--connect-timeout", "30s")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "the policy is in force", func() error {
			if text, err := exec.Command(bin.Hypha, "policy", "get", "--state-dir", dir).CombinedOutput(); err != nil || !strings.Contains(string(text), "deny-all-egress") {
				return errors.New(string(text))
			}
			return nil
		})
		begin := time.Now()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 || time.Since(begin) > 20*time.Second {
			t.Errorf("exit code %d after %s\n%s", code, time.Since(begin), out.String())
		}
	})
	same("after an interrupt")
}

// traces are what a run of the connectivity tests could leave behind.
func (d demoRun) traces() string {
	d.t.Helper()
	var all strings.Builder
	for _, args := range [][]string{{"policy", "get"}, {"service", "list"}} {
		out, err := exec.Command(bin.Hypha, append(args, "--state-dir", d.dir)...).Output()
		if err != nil {
			d.t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(out), "Revision:")
		all.WriteString(text)
	}
	for name := range d.pods() {
		if strings.Contains(name, "cilium-test") {
			all.WriteString("pod " + name + "\n")
		}
	}
	for _, args := range [][]string{{"ip", "addr", "show", "dev", "lo"}, {"ip", "route"}, {"ip", "-6", "route"}, {"ss", "-lnt"}} {
		all.WriteString(d.ok(append([]string{"exec", "world", "--"}, args...)...))
	}
	return all.String()
}
