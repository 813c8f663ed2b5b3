package arm

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/netns"
)

func TestNewService(t *testing.T) {
	seen := map[string]bool{}
	for i := range 40000 {
		s := NewService(i)
		for _, a := range []string{s.Name, s.Addr.String(), s.Endpoints[0].String(), s.Endpoints[1].String()} {
			if seen[a] {
				t.Fatalf("service %d: %s is another's already", i, a)
			}
			seen[a] = true
		}
	}
	if got := NewService(30000).Addr.String(); got != "10.96.117.49" {
		t.Error(got)
	}
}

// Services that come one after the other end in the same rules as all of them at once.
func TestShapes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	for _, tool := range []string{"iptables-restore", "iptables-save", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if err := netns.Sweep(); err != nil {
		t.Fatal(err)
	}
	listed := map[string][]string{"B1": {"iptables-save", "-t", "nat"}, "B2": {"nft", "-s", "list", "table", "ip", "kube-proxy"}}
	rules := func(at int) map[string]string { // five services, so many to a command; 0: loaded anew
		out := map[string]string{}
		for _, a := range KubeProxyBare() {
			t.Cleanup(func() {
				if err := a.Teardown(); err != nil {
					t.Error(err)
				}
			})
			a.most = at
			for i := range 5 {
				a.services = append(a.services, NewService(i))
			}
			if ends, err := a.Setup(t.Context()); err != nil || ends.Target != NewService(4).Addr {
				t.Fatal(ends, err)
			}
			text, err := a.node.Output(command(listed[a.Name()]))
			if err != nil {
				t.Fatal(err)
			}
			out[a.Name()] = sorted(text)
		}
		return out
	}
	whole, grown := rules(0), rules(2)
	for name, want := range whole {
		if grown[name] != want || !strings.Contains(want, "10.96.0.5") || !strings.Contains(want, "100.64.0.10") {
			t.Errorf("%s, one after the other:\n%s\nat once:\n%s", name, grown[name], want)
		}
	}
}

func command(argv []string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }

// sorted are the lines that say something, in one order: chains and elements are listed as they came.
func sorted(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimRight(strings.Trim(line, " \t\n"), ","))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
