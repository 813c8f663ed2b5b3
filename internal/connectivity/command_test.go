package connectivity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func command(p *fakePlace, seen *Options, args ...string) (string, error) {
	cmd := NewCommand(func(_ *cobra.Command, o Options) (Place, error) {
		*seen = o
		return p, nil
	})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(append([]string{"test"}, args...))
	err := cmd.Execute()
	return out.String(), err
}

func TestCommand(t *testing.T) {
	p := newFake(one(t, "all-egress-deny"))
	var o Options
	out, err := command(p, &o, "--list", "--test", "named-port-deny,!ccnp")
	if err != nil || out != "client-ingress-to-echo-named-port-deny\n" {
		t.Errorf("%v %q", err, out)
	}
	file := filepath.Join(t.TempDir(), "j.xml")
	out, err = command(p, &o, "--test", "^all-egress-deny/", "--junit-file", file, "--junit-property", "a=b", "--test-namespace", "x", "-t", "-v")
	if err != nil || o.Namespace != "x-1" || !strings.Contains(out, "] ✅ [cilium-test-1] All 1 tests (12 actions) successful") ||
		!strings.Contains(out, "[-] Scenario [all-egress-deny/pod-to-pod]") || !strings.Contains(out, "[.] Action [all-egress-deny/pod-to-pod/curl-ipv6-1: ") {
		t.Errorf("%v %+v\n%s", err, o, out)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `<property name="a" value="b">`) {
		t.Errorf("%v\n%s", err, text)
	}
	p.events = nil
	if _, err = command(p, &o, "--test", "^all-egress-deny/", "--keep"); err != nil || slices.Contains(p.events, "close") {
		t.Errorf("%v %v", err, p.events)
	}
	for _, args := range [][]string{
		{"--test", "("}, {"--flow-validation", "some"}, {"--test-concurrency", "2"}, {"--external-ip", "1.1.1.1"},
		{"--external-target", "x", "--external-cidr", "1.0.0.0/8", "--external-ip", "1.1.1.1", "--external-other-ip", "2.2.2.2"},
	} {
		_, err := command(p, &o, args...)
		var usage *UsageError
		if !errors.As(err, &usage) || usage.ExitCode() != 2 {
			t.Errorf("%v: %v", args, err)
		}
	}
	_, err = command(p, &o, "--test", "nothing", "--external-target", "one.one.one.one.", "--external-cidr", "1.0.0.0/8", "--external-ip", "1.1.1.1", "--external-other-ip", "1.0.0.1")
	ext, given, external := o.External()
	if err != nil || external != nil || !given || ext.Name != "one.one.one.one." || ext.V4.CIDR.String() != "1.0.0.0/8" {
		t.Errorf("%v %v %+v", err, external, ext)
	}
}
